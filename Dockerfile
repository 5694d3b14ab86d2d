# The server of docs/serving.md, as an ordinary user, on a CPU. A saved model is mounted at /model.
FROM python:3.11-slim
WORKDIR /app
# The pinned requirements without those of the tests, with PyTorch's own builds for CPUs, and what the server needs.
COPY requirements.txt .
RUN sed -e '/^# tests/,$d' requirements.txt > pinned.txt \
    && grep -E '^(fastapi|uvicorn|python-multipart)==' requirements.txt >> pinned.txt \
    && pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r pinned.txt
COPY *_rsa_cfn.py ./
COPY foundation foundation
COPY metrics metrics
COPY corpora corpora
COPY training training
COPY scripts scripts
RUN useradd --create-home server
USER server
ENV HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
EXPOSE 8000
HEALTHCHECK --start-period=120s --interval=30s --timeout=10s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=9)"]
CMD ["python", "-m", "scripts.serve", "/model", "--host", "0.0.0.0"]
