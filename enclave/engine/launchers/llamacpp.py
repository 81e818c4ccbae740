"""Runs llama.cpp's HTTP server from the xllamacpp wheel, bound to a unix socket.

The enclave starts this file with `python3 -I`; its hash is part of the engine image digest. Everything that would keep
state of one epoch for the next, beyond the slots themselves, is switched off here: the prompt cache in host memory, the
saving of idle slots, context checkpoints, LoRA adapters, the draft model, router mode. The slots are what `erase` clears.
"""

import argparse
import os
import sys
import threading


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--wheel", required=True, help="directory that holds the unpacked xllamacpp wheel")
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--socket", required=True, help="unix socket to listen on")
    parser.add_argument("--slots-dir", required=True, help="empty directory on tmpfs; only makes slot erase available")
    parser.add_argument("--parallel", type=int, default=4, help="slots, so concurrent sequences")
    parser.add_argument("--context", type=int, default=4096, help="tokens of context, shared out among the slots")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads, 0 leaves the choice to llama.cpp")
    return parser.parse_args()


def params(x, a):
    p = x.CommonParams()
    p.model.path = a.model
    p.hostnames = [a.socket]
    p.n_parallel = a.parallel
    p.n_ctx = a.context
    if a.threads > 0:
        p.cpuparams.n_threads = a.threads
        p.cpuparams_batch.n_threads = a.threads
    # Chat and embeddings on one server.
    p.embedding = True
    p.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # Tools and JSON schemas need the model's own chat template.
    p.use_jinja = True
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
    sys.path.insert(0, a.wheel)
    import xllamacpp

    server = xllamacpp.Server(params(xllamacpp, a))
    # The server runs on threads of its own and stops when this object is dropped; signals end the process.
    threading.Event().wait()
    del server


if __name__ == "__main__":
    main()
