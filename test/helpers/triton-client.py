"""Calls a server with Triton's own clients. Arguments: host:port and an image in base64. Prints as JSON what was said:
the probabilities by what was asked and the form of the call, and the errors by what was refused."""

import base64
import json
import sys
from collections import defaultdict

import numpy as np
import tritonclient.grpc as grpc
import tritonclient.http as http

address, image = sys.argv[1:]
pixels = (np.arange(2 * 3 * 16 * 16) * 37 % 256).astype(np.uint8).reshape(2, 3, 16, 16)
images = np.array([base64.b64decode(image)], dtype=np.object_)
answers = defaultdict(dict)
errors = defaultdict(dict)


def infer(client, library, name, values, datatype, tensor_options={}, **options):
    tensor = library.InferInput(name, list(values.shape), datatype)
    tensor.set_data_from_numpy(values, **tensor_options)
    result = client.infer("test", [tensor], request_id="7", **options)
    assert result.get_response() is not None
    assert result.as_numpy("label").shape == (len(values),)
    return result


def probabilities(*arguments, **options):
    return infer(*arguments, **options).as_numpy("probabilities").tolist()


def error_of(library, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except library.InferenceServerException as error:
        return error.message()


def ask_all(wire, client, library):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("test") and client.is_model_ready("test", "1")
    assert not client.is_model_ready("test", "2")
    assert not client.is_model_ready("test", "9") and not client.is_model_ready("other")

    answers["pixels"][wire] = probabilities(client, library, "pixels", pixels, "UINT8")
    answers["pixels"][f"{wire}, FP32"] = probabilities(client, library, "pixels", pixels.astype(np.float32), "FP32")
    answers["image"][wire] = probabilities(client, library, "image", images, "BYTES")
    client.load_model("test")
    options = {"model_version": "2", "priority": 1, "timeout": 60_000_000}
    answers["version 2"][wire] = probabilities(client, library, "pixels", pixels, "UINT8", **options)
    assert client.is_model_ready("test", "2")

    refused = errors[wire]
    refused["another model"] = error_of(library, client.get_model_metadata, "other")
    refused["another version"] = error_of(
        library, infer, client, library, "pixels", pixels, "UINT8", model_version="9"
    )
    refused["no image"] = error_of(
        library, infer, client, library, "image", np.array([b"nothing"], dtype=np.object_), "BYTES"
    )
    refused["a configuration"] = error_of(library, client.load_model, "test", config="{}")
    refused["unloading the champion"] = error_of(library, client.unload_model, "test")


with grpc.InferenceServerClient(address) as client:
    assert client.get_server_metadata().name == "millrace"
    assert client.get_model_metadata("test").inputs[1].name == "pixels"
    ask_all("grpc", client, grpc)
    index = client.get_model_repository_index().models
    assert [(model.version, model.state) for model in index] == [("2", "READY"), ("1", "READY")]
    response = infer(client, grpc, "pixels", pixels, "UINT8").get_response()
    assert len(response.parameters["prediction_ids"].string_param.split(",")) == 2
    answers["pixels"]["grpc, gzip"] = probabilities(
        client, grpc, "pixels", pixels, "UINT8", compression_algorithm="gzip"
    )
    # So that the next wire finds what this one found.
    request = grpc.service_pb2.RepositoryModelUnloadRequest(model_name="test")
    request.parameters["version"].string_param = "2"
    client._client_stub.RepositoryModelUnload(request)

with http.InferenceServerClient(address) as client:
    assert client.get_server_metadata()["name"] == "millrace"
    assert client.get_model_metadata("test")["inputs"][1]["name"] == "pixels"
    ask_all("http", client, http)
    assert [model["state"] for model in client.get_model_repository_index()] == ["READY", "READY"]
    in_json = {"binary_data": False}
    response = infer(client, http, "pixels", pixels, "UINT8", in_json).get_response()
    assert len(response["parameters"]["prediction_ids"].split(",")) == 2
    answers["pixels"]["http, json"] = probabilities(client, http, "pixels", pixels, "UINT8", in_json)
    text = np.array([image.encode()], dtype=np.object_)
    answers["image"]["http, json"] = probabilities(client, http, "image", text, "BYTES", in_json)
    for algorithm in ["gzip", "deflate"]:
        options = {"request_compression_algorithm": algorithm, "response_compression_algorithm": algorithm}
        answers["pixels"][f"http, {algorithm}"] = probabilities(client, http, "pixels", pixels, "UINT8", **options)

print(json.dumps({"answers": answers, "errors": errors}))
