"""Reads a token shard with h5py by docs/FORMATS.md: checks it and prints its documents, one a line."""

import sys

import h5py

try:
    import xxhash
except ImportError:
    xxhash = None  # h5py is enough for everything but the hashes


def main(path):
    with h5py.File(path, "r") as shard:
        attributes = {name: value.decode() if isinstance(value, bytes) else value for name, value in shard.attrs.items()}
        assert attributes["token_shard_version"] == 1
        tokens, offsets = shard["tokens"], shard["document_offsets"]
        assert tokens.dtype == ("<u2" if attributes["vocab_size"] <= 65536 else "<u4"), tokens.dtype
        assert offsets.dtype == "<u8", offsets.dtype
        assert tokens.chunks is None and offsets.chunks is None and not tokens.is_virtual
        assert tokens.shape == (attributes["token_count"],)
        assert offsets.shape == (attributes["document_count"] + 1,)
        assert len(attributes["tokenizer_fingerprint"]) == 32
        for name in "tokens", "document_offsets":
            assert len(attributes[name + "_xxh3_128"]) == 32
            if xxhash is not None:
                assert xxhash.xxh3_128_hexdigest(shard[name][:].tobytes()) == attributes[name + "_xxh3_128"]
        assert offsets[0] == 0 and offsets[-1] == len(tokens)
        for begin, end in zip(offsets[:-1], offsets[1:]):
            document = tokens[begin:end]
            assert document[-1] == attributes["end_of_text"]
            print(*document)


main(sys.argv[1])
