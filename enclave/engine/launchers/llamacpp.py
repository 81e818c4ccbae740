"""Runs llama.cpp's HTTP server from the xllamacpp wheel, bound to a unix socket.

The enclave starts this file with `python3 -I`; its hash is part of the engine image digest. Everything that would keep
state of one epoch for the next, beyond the slots themselves, is switched off here: the prompt cache in host memory, the
saving of idle slots, context checkpoints, LoRA adapters, the draft model. The slots are what `erase` clears.
"""

import argparse
import mmap
import os
import signal
import struct
import sys
import threading

# Used with ChatML models whose own template knows no tools; without tools the model's own template renders.
CHATML_TOOLS = r"""{%- if tools %}
{{- '<|im_start|>system\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
{{- "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function signatures within <tools></tools> XML tags:\n<tools>" }}
{%- for tool in tools %}{{- "\n" }}{{- tool | tojson }}{%- endfor %}
{{- "\n</tools>\n\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call><|im_end|>\n" }}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>assistant\n' }}
        {%- if message.content %}{{- message.content }}{%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and message.content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\n{"name": "' }}
                {{- tool_call.name }}
                {{- '", "arguments": ' }}
                {{- tool_call.arguments | tojson }}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {{- '<|im_start|>user\n<tool_response>\n' + message.content + '\n</tool_response><|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
{%- else %}
@MODEL@
{%- endif %}"""


def arguments():
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--wheel", required=True, help="directory that holds the unpacked xllamacpp wheel")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--slots-dir", required=True, help="empty directory on tmpfs; only makes slot erase available")
    parser.add_argument("--parallel", type=int, default=4, help="slots, so concurrent sequences")
    parser.add_argument("--context", type=int, default=4096, help="tokens of context, shared out among the slots")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 leaves the choice to llama.cpp")
    return parser.parse_args()


def model_template(path):
    """The chat template in a GGUF file, or None: a key, its type (8, string), its length and the text."""
    key = b"tokenizer.chat_template"
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        at = data.find(key)
        if at < 0:
            return None
        at += len(key)
        kind, length = struct.unpack_from("<IQ", data, at)
        if kind != 8 or length > 1 << 20:
            return None
        return data[at + 12 : at + 12 + length].decode("utf-8", "replace")


def chat_template(path):
    """A template that knows tools, when the model's own does not; else empty, which means the model's own."""
    own = model_template(path)
    if own is None or "tools" in own or "<|im_start|>" not in own:
        return ""
    return CHATML_TOOLS.replace("@MODEL@", own)


def params(x, a):
    p = x.CommonParams()
    p.model.path = a.model
    # What the server says of itself: no path, and the version of the wheel, since the build number is not compiled in.
    p.model_alias = {"model"}
    p.model_tags = {"xllamacpp-" + x.__version__}
    p.hostnames = [a.socket]
    p.n_parallel = a.parallel
    p.n_ctx = a.context
    if a.threads > 0:
        p.cpuparams.n_threads = a.threads
        p.cpuparams_batch.n_threads = a.threads
    # Chat and embeddings on one server.
    p.embedding = True
    p.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # Tools and JSON schemas need a chat template.
    p.use_jinja = True
    p.chat_template = chat_template(a.model)
    # Prefix hits inside one epoch; nothing outside the slots.
    p.cache_prompt = True
    p.cache_ram_mib = 0
    p.cache_idle_slots = False
    p.n_ctx_checkpoints = 0
    p.slot_save_path = os.path.join(a.slots_dir, "")
    # The enclave's view of the engine; answers only on the socket.
    p.endpoint_slots = True
    p.endpoint_metrics = True
    p.endpoint_props = False
    p.ui = False
    # The log would hold prompts.
    p.verbosity = -1
    p.offline = True
    return p


def main():
    a = arguments()
    # The first process of a PID namespace ignores TERM unless it asks for it. Nothing here is worth an orderly end.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    sys.path.insert(0, a.wheel)
    import xllamacpp

    server = xllamacpp.Server(params(xllamacpp, a))
    # The server runs on threads of its own and stops when this object is dropped.
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
