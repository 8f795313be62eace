"""Calls a server with Triton's own clients. Arguments: host:port. Prints the probabilities that each form of call gave, as JSON."""

import json
import sys

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

address = sys.argv[1]
pixels = (np.arange(2 * 3 * 16 * 16) * 37 % 256).astype(np.uint8).reshape(2, 3, 16, 16)
answers = {}


def infer(client, library, **options):
    tensor = library.InferInput("pixels", list(pixels.shape), "UINT8")
    tensor.set_data_from_numpy(pixels, **options)
    result = client.infer("test", [tensor], request_id="7")
    assert result.get_response() is not None
    assert result.as_numpy("label").shape == (2,)
    return result.as_numpy("probabilities").tolist()


with grpc.InferenceServerClient(address) as client:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("test", "1")
    assert client.get_server_metadata().name == "millrace"
    assert client.get_model_metadata("test").inputs[1].name == "pixels"
    answers["grpc"] = infer(client, grpc)
    client.load_model("test")
    client.unload_model("test")
    index = client.get_model_repository_index().models
    assert [(model.version, model.state) for model in index][-1] == ("1", "READY")

with http.InferenceServerClient(address) as client:
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("test", "1")
    assert client.get_server_metadata()["name"] == "millrace"
    assert client.get_model_metadata("test")["inputs"][1]["name"] == "pixels"
    answers["http, binary"] = infer(client, http)
    client.load_model("test")
    client.unload_model("test")
    assert client.get_model_repository_index()[-1]["state"] == "READY"
    answers["http, json"] = infer(client, http, binary_data=False)
    try:
        client.get_model_metadata("other")
    except http.InferenceServerException as error:
        answers["error"] = str(error)

print(json.dumps(answers))
