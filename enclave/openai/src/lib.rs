//! OpenAI requests and answers as the enclave lets them through: an allow-list, pure.
