"""Classifies image files: python classify.py 127.0.0.1:7404 cat.png dog.jpg"""

import json
import sys
from pathlib import Path

import grpc

sys.path.insert(0, str(Path(__file__).parent / "gen"))
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from millrace.v1.prediction_pb2 import PredictRequest
from millrace.v1.prediction_pb2_grpc import PredictionServiceStub

retries = {
    "name": [{"service": "millrace.v1.PredictionService", "method": "Predict"}],
    "retryPolicy": {
        "maxAttempts": 4,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 2,
        "retryableStatusCodes": ["UNAVAILABLE"],
    },
}


def reason_of(error: grpc.RpcError) -> str:
    """Millrace's stable reason for a failed call, such as QUEUE_FULL; the gRPC status where the error is not Millrace's."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            for detail in Status.FromString(value).details:
                info = ErrorInfo()
                if detail.Unpack(info):
                    return info.reason
    return error.code().name


address, *paths = sys.argv[1:]
options = [("grpc.service_config", json.dumps({"methodConfig": [retries]}))]
with grpc.insecure_channel(address, options) as channel:
    predictions = PredictionServiceStub(channel)
    for path in paths:
        try:
            request = PredictRequest(image=Path(path).read_bytes(), top_k=3)
            answer = predictions.Predict(request, timeout=10)
            print(path, *(f"{each.label} {each.probability:.1%}" for each in answer.predictions))
        except grpc.RpcError as error:
            print(path, reason_of(error))
