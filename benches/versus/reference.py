"""The same listeners with Gradio."""

import asyncio
import os
import sys

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from gradio import Server  # noqa: E402

app = Server()


@app.api(name="echo", concurrency_limit=None)
async def echo(x: str) -> str:
    return x


@app.api(name="echo1")
async def echo1(x: str) -> str:
    await asyncio.sleep(0.001)
    return x


if __name__ == "__main__":
    app.launch(server_name="127.0.0.1", server_port=int(sys.argv[1]), quiet=True)
