#!/usr/bin/env python3
"""Compares Tessera's tokenizer with Hugging Face's `tokenizers` on megabytes of mixed text.

    tokenizer_oracle.py --tessera build/cpu-release/tessera [--text FILE ...] [--megabytes 4]
    tokenizer_oracle.py --write-golden          writes tests/data/tokenizers/ anew

Files that Tessera trained are loaded there, files that were trained there are loaded by Tessera, and every encoding
must be the same, id for id. Exit code 0: equal; 1: not; 77: `tokenizers` is not installed, nothing was compared.
"""
import argparse
import glob
import json
import os
import random
import subprocess
import sys
import tempfile
import unicodedata

try:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
except ImportError:
    print("skipped: the Python package `tokenizers` is not installed (pip install tokenizers)")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
GOLDEN = os.path.join(HERE, "tokenizers")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
PATTERNS = {
    "llama3": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + REST,
    "qwen2": CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + REST,
    "gpt4o": r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + "+" + CONTRACTIONS + r"?|[^\r\n\p{L}\p{N}]?" + UPPER + "+"
             + LOWER + "*" + CONTRACTIONS + r"?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


def split_steps(pattern):
    if pattern == "gpt2":
        return pre_tokenizers.ByteLevel(add_prefix_space=False)
    if pattern == "digits":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    split = pre_tokenizers.Split(Regex(PATTERNS[pattern]), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def train_there(texts, pattern, vocab_size, special="<|endoftext|>"):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split_steps(pattern)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=[special], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def with_whole_pieces(tokenizer, names):
    """The same tokenizer with ignore_merges, and tokens that no merge leads to."""
    root = json.loads(tokenizer.to_str())
    root["model"]["ignore_merges"] = True
    vocabulary = root["model"]["vocab"]
    for name in names:
        vocabulary.setdefault(name, len(vocabulary))
    return Tokenizer.from_str(json.dumps(root))


def mixed_text(size, seed):
    """Words of many scripts (as of Unicode 14, which PCRE2 10.42 knows), white space of all kinds, and odd things."""
    draw = random.Random(seed)
    assigned = [c for c in range(1, 0x110000)
                if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) not in ("Cn", "Co")]
    known = set(assigned)
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x400), (0x400, 0x530), (0x590, 0x600), (0x600, 0x700),
              (0x900, 0x980), (0xE00, 0xE80), (0x1100, 0x1200), (0x2000, 0x2070), (0x3040, 0x3100), (0x4E00, 0x9FF0),
              (0xAC00, 0xD7A4), (0x10330, 0x10350), (0x1F300, 0x1F6FF), (0x1F900, 0x1F9FF)]
    pools = [[c for c in range(*block) if c in known] for block in blocks] + [assigned]
    spaces = [" ", "  ", "\n", "\n\n", "\t", " \n ", "\r\n", "\u3000", "\u00a0", "\u2028", "\x85", "\x0b", "\x1c",
              "\u180e", "\u200b"]
    odd = ["'s", "'T", "'re", "'LL", "'\u017f", "don't", "I'M", "\u2019s", "12345", "3.14159", "\u0663\u0664\u0665", "\u00bd", "e\u0301",
           "\U0001f469\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "<|endoftext|>", "</s>", "\u1e9e", "\u0130",
           "camelCaseHTTPServer", "!!!???", "=>", "0x1F", "http://x.y/z?q=1&r=2", "the", "tokenizer", "<tool_call>"]
    parts, length = [], 0
    while length < size:
        kind = draw.random()
        if kind < 0.45:
            pool = draw.choice(pools)
            part = "".join(chr(draw.choice(pool)) for _ in range(draw.randint(1, 8)))
        elif kind < 0.75:
            part = draw.choice(spaces) * draw.choice([1, 1, 1, 2, 7])
        else:
            part = draw.choice(odd)
        parts.append(part)
        length += len(part.encode())
    runs = [" " * 5000, "\n" * 3000, "x" * 20000, "\t" * 777, "9" * 4000, "\u6f22" * 3000, "\U0001f600" * 2000, "-" * 5000,
            " \n" * 3000, "\u00e9a" * 3000, "ABCd" * 3000]
    return "".join(parts + runs)


def natural_text(size):
    """English documentation and source code that any machine with Python has."""
    patterns = ["/usr/share/perl/**/*.pod", "/usr/share/perl/**/*.pm", "/usr/include/**/*.h",
                os.path.join(os.path.dirname(os.__file__), "**", "*.py")]
    texts = []
    for pattern in patterns:
        share = []
        left = size // len(patterns)
        for path in sorted(glob.glob(pattern, recursive=True)):
            with open(path, "rb") as file:
                text = file.read(left).decode("utf-8", "ignore").replace("\0", "")
            share.append(text)
            left -= len(text)
            if left <= 0:
                break
        texts.append("".join(share))
    return "".join(texts)


def encode_there(tokenizer, text):
    tokenizer.encode_special_tokens = True  # Tessera never finds special tokens in text
    return tokenizer.encode(text, add_special_tokens=False).ids


def run(command, **options):
    done = subprocess.run(command, capture_output=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
    return done.stdout.decode()


def compare(name, tessera, path, texts, failures):
    tokenizer = Tokenizer.from_file(path)
    for label, (file, text) in texts.items():
        theirs = encode_there(tokenizer, text)
        ours = json.loads(run([tessera, "tokenizer", "encode", "--tokenizer", path, "--json", file]).splitlines()[-1])["ids"]
        if ours == theirs:
            print(f"{name}: {label}: {len(ours)} tokens of {len(text.encode())} bytes are equal")
            continue
        place = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
        window = slice(max(0, place - 2), place + 4)
        print(f"{name}: {label}: DIFFERENT at token {place}: ours {ours[window]}, theirs {theirs[window]} "
              f"({tokenizer.decode(theirs[window], skip_special_tokens=False)!r})")
        failures.append(name)


def compare_all(arguments):
    size = int(arguments.megabytes * 1e6)
    failures = []
    with tempfile.TemporaryDirectory() as folder:
        texts = {}
        sources = {"documentation and code": natural_text(size), "many scripts": mixed_text(size, 1)}
        for path in arguments.text:
            with open(path, newline="", encoding="utf-8") as file:
                sources[path] = file.read()
        for label, text in sources.items():
            file = os.path.join(folder, f"text{len(texts)}.txt")
            with open(file, "w", newline="", encoding="utf-8") as out:
                out.write(text)
            texts[label] = (file, text)
        for pattern in ["gpt2", "llama3", "qwen2", "gpt4o"]:
            path = os.path.join(folder, f"ours_{pattern}.json")
            run([arguments.tessera, "tokenizer", "train", "--output", path, "--vocab-size", "8192", "--pattern", pattern,
                 "--input"] + [file for file, _ in texts.values()])
            compare(f"trained here, {pattern}", arguments.tessera, path, texts, failures)
        # The largest difference between machines would be the training texts, so a part of each is enough.
        lines = [line for _, text in texts.values() for line in text[: size // 4].splitlines(keepends=True)]
        for pattern in ["gpt2", "llama3", "qwen2", "gpt4o", "digits"]:
            tokenizer = train_there(lines, pattern, 4096)
            if pattern == "llama3":
                tokenizer = with_whole_pieces(tokenizer, ["\u0120tokenizer", "camelCase", "zebra"])
            if pattern == "qwen2":
                tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("http", normalized=False)])
            path = os.path.join(folder, f"theirs_{pattern}.json")
            tokenizer.save(path)
            compare(f"trained there, {pattern}", arguments.tessera, path, texts, failures)
    if failures:
        sys.exit(f"{len(failures)} comparisons failed")
    print("all encodings are equal")


GOLDEN_TEXTS = [
    "", "Hello, world!", "  two spaces\n\n\nlines \t tabs  ", "don't DON'T we'll I'M it's '\u017f",
    "12345 1,000.25 \u0663\u0664\u0665 \u00bd\u00b2", "na\u00efve caf\u00e9 e\u0301 \u00dcber stra\u00dfe", "\u65e5\u672c\u8a9e\u306e\u30c6\u30ad\u30b9\u30c8\u3002\u6f22\u5b57",
    "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440", "\U0001f469\u200d\U0001f469\u200d\U0001f467 \U0001f1e9\U0001f1ea \U0001f600\U0001f600",
    "int main(int argc, char** argv) {\n  return 0;  // the end\n}\n", "<|endoftext|> is text, </s> too",
    "a\u3000b\u00a0c\u2028d\u180ee\u200bf\x85g", "\r\n\r\n x\r\ny", "zebra zebras the tokenizer", "<tool_call>{}</tool_call><tool_callx",
    "snake_case camelCaseHTTPServer x=1;y+=2", "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0939\u093f\u0928\u094d\u0926\u0940 \u0639\u0631\u0628\u064a", "aaaaaaaaaaaaaaaa          b",
]


def write_golden():
    os.makedirs(GOLDEN, exist_ok=True)
    lines = [text for text in GOLDEN_TEXTS if "zebra" not in text] * 3 + ["the then there other tokenizer of the text"] * 5
    cases = []
    for pattern in ["gpt2", "llama3", "qwen2", "digits"]:
        tokenizer = train_there(lines, pattern, 330, "<|end_of_text|>" if pattern == "llama3" else "<|endoftext|>")
        if pattern == "llama3":
            tokenizer = with_whole_pieces(tokenizer, ["zebra", "\u0120zebras"])
        if pattern == "qwen2":
            tokenizer.add_tokens([AddedToken("<tool_call>", normalized=False), AddedToken("<tool_callx", normalized=False)])
        root = json.loads(tokenizer.to_str())
        if pattern == "gpt2":  # the older spelling
            root["model"]["merges"] = [" ".join(merge) for merge in root["model"]["merges"]]
        name = f"{pattern}.json"
        with open(os.path.join(GOLDEN, name), "w", encoding="utf-8") as file:
            json.dump(root, file, ensure_ascii=True, separators=(",", ":"))
            file.write("\n")
        tokenizer = Tokenizer.from_file(os.path.join(GOLDEN, name))
        for text in GOLDEN_TEXTS:
            cases.append({"tokenizer": name, "text": text, "ids": encode_there(tokenizer, text)})
    with open(os.path.join(GOLDEN, "golden.json"), "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tessera", help="the program")
    parser.add_argument("--text", nargs="*", default=[], help="more files to compare on (UTF-8)")
    parser.add_argument("--megabytes", type=float, default=4, help="of each generated text")
    parser.add_argument("--write-golden", action="store_true")
    arguments = parser.parse_args()
    if arguments.write_golden:
        write_golden()
    elif arguments.tessera:
        compare_all(arguments)
    else:
        parser.error("--tessera or --write-golden is needed")


if __name__ == "__main__":
    main()
