"""What scripts.serve runs: a thread that answers together what has arrived together, and the HTTP app before it."""

import asyncio
import logging
import queue
import threading
from concurrent.futures import Future
from typing import Annotated

from fastapi import FastAPI, Form, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from audio_rsa_cfn import decode_audio
from processing_rsa_cfn import RsaCfnPipeline
from training.precision import scoring_in


logger = logging.getLogger(__name__)
logging.getLogger("python_multipart").setLevel(logging.ERROR)  # which warns of each bad form

# Who sends a byte now and then has a place for no longer.
RECEIVING_SECONDS = 60


class Words(BaseModel, extra="forbid"):
    """A query: the transcript of the recording that is the body, and the texts of the turns before it."""

    text: str = ""
    context: list[str] = []


class Given(Words):
    """A form, with the recording in it."""

    audio: UploadFile | None = None


class Batches:
    """A pipeline that is called in a thread of its own with all rows that wait, up to its batch size."""

    def __init__(self, pipe: RsaCfnPipeline, batch_size: int, precision: str = "no"):
        self.pipe, self.batch_size, self.precision = pipe, batch_size, precision
        self.waiting = queue.SimpleQueue()  # rows, and where their answers go: what the pipeline's "return" gives
        threading.Thread(target=self._run, daemon=True).start()

    def read(self, audio: bytes | None, text: str | None, context: list[str], max_seconds: float) -> dict:
        """A row for the pipeline. Raises `ValueError` where it would, or where the recording is longer."""
        row = {"audio": audio, "text": text, "context": context or None}
        if audio is not None and self.pipe.model.audio_model is not None:
            rate = self.pipe.processor.feature_extractor.sampling_rate
            row["audio"] = {"array": decode_audio(audio, None, rate, max_seconds), "sampling_rate": rate}
        for _ in self.pipe.preprocess(row):
            pass
        return row

    def _run(self) -> None:
        with scoring_in(self.precision, self.pipe.device):
            while True:
                taken = [self.waiting.get()]
                while len(taken) < self.batch_size and not self.waiting.empty():
                    taken.append(self.waiting.get())
                try:
                    answers = self.pipe([row for row, _ in taken], batch_size=self.batch_size, on_error="return")
                except Exception as error:
                    logger.error("An answer failed", exc_info=error)
                    answers = [{"error": f"this can't be answered ({type(error).__name__})."}] * len(taken)
                for (_, future), answer in zip(taken, answers, strict=True):
                    future.set_result(answer)


class Guard:
    """An ASGI app behind limits: bytes of a request, how many are under way, and seconds that one takes to come."""

    def __init__(self, app, max_bytes: float, max_requests: int):
        self.app, self.max_bytes, self.max_requests, self.under_way = app, max_bytes, max_requests, 0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        length, is_full = 0, self.under_way >= self.max_requests
        deadline = asyncio.get_running_loop().time() + RECEIVING_SECONDS

        async def receive_some():
            nonlocal length
            if is_full:
                told = f"{self.max_requests} requests are under way; come again."
                raise HTTPException(503, told, {"Retry-After": "1"})
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError as error:
                raise HTTPException(408, f"the request didn't come in {RECEIVING_SECONDS} seconds.") from error
            length += len(message.get("body", b""))
            if length > self.max_bytes:  # what still comes is dropped by uvicorn
                raise HTTPException(413, f"the request has over {self.max_bytes / 1e6:g} MB; give a part of it.")
            if message["type"] == "http.disconnect":
                raise HTTPException(400, "the request ended early.")
            return message

        self.under_way += not is_full
        try:
            await self.app(scope, receive_some, send)
        finally:
            self.under_way -= not is_full


def build_app(batches: Batches, max_bytes: float, max_seconds: float, max_requests: int) -> Guard:
    """The app of `/predict`, `/health` and `/docs`."""
    app = FastAPI(title="RSA-CFN", description="Emotion from speech and its transcript.")

    @app.post("/predict")
    async def predict(request: Request, query: Annotated[Words, Query()], form: Annotated[Given, Form()]):
        """
        The emotions of a form, or of a recording that is the whole body and what of the form is in the query then. 408,
        413 and 422 say what is wrong with it, 503 that too many requests are under way.
        """
        is_form = request.headers.get("content-type", "").startswith("multipart/form-data")
        audio = await form.audio.read() if form.audio else None if is_form else await request.body() or None
        text, context = (form.text or query.text).strip() or None, form.context or query.context
        try:
            row = await run_in_threadpool(batches.read, audio, text, context, max_seconds)
        except ValueError as error:
            raise HTTPException(422, str(error)) from error
        answer = Future()
        batches.waiting.put((row, answer))
        answer = await asyncio.wrap_future(answer)
        if "error" in answer:
            raise HTTPException(500, answer["error"])
        return answer

    @app.get("/health")
    async def health():
        return {"status": "ok"}

    return Guard(app, max_bytes, max_requests)
