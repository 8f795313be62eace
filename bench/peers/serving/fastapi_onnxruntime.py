"""FastAPI on uvicorn. Each worker answers its requests one by one: the framework has no batches."""

from typing import Annotated

import uvicorn
from fastapi import Body, FastAPI

from model import PORT, WORKERS, decode, load_session, probabilities

app = FastAPI()
session = load_session()


@app.post("/predict")
async def predict(jpeg: Annotated[bytes, Body(media_type="image/jpeg")]) -> list[float]:
    # In the event loop: handing a millisecond's work to a thread costs more than it gives.
    return probabilities(session, decode(jpeg)[None])[0].tolist()


if __name__ == "__main__":
    # Workers that are slow to answer their supervisor, as they may be under this load, are not to be replaced.
    options = {"log_level": "warning", "access_log": False, "timeout_worker_healthcheck": 60}
    uvicorn.run("fastapi_onnxruntime:app", port=PORT, workers=WORKERS, **options)
