//! From the raw file to the typed configuration; each refusal names key, value and what is allowed.
