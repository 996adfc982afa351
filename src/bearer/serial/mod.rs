//! Messages over a half-duplex serial HF modem.
