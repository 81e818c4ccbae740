//! In the TEE: attester, session termination, lease enforcement, engine client.
