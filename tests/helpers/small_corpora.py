"""Small corpora in the form of the published ones, and their expected examples.

Each function takes pytest's monkeypatch and an address, makes the builder take its
files from there with their checksums, and returns a `Case`.
"""

from dataclasses import dataclass

from data.corpora.builders import STEMS
from data.corpora.download import RemoteArchive, RemoteFile
from data.corpora.text import enwik8, lm1b, pg19, ptb, tinyshakespeare, wikitext
from data.corpora.translation import iwslt14, multi30k, ted_hrlr, wmt14
from helpers.loopback import checksum, gz, listing, pack, sgm, talks, text


@dataclass
class Case:
    """A small corpus.

    Attributes:
      name: of the corpus.
      files: as published, by path below the address.
      plain: what a source folder may hold instead.
      expected: the examples by split.
      damaged: the path of `files` that is to be changed or cut short, and what any
        message then names.
    """

    name: str
    files: dict
    plain: dict
    expected: dict
    damaged: str


def rows(*lines):
    return [(line,) for line in lines]


def small_enwik8(monkeypatch, address):
    # Both boundaries, 3 and 6 bytes from the end, are inside "é", of two bytes.
    content = "<page>\n\n  Uml\u2028ute\nxxéaé12".encode()
    monkeypatch.setattr(enwik8, "HELD_OUT", 3)
    archive = RemoteArchive(f"{address}/enwik8.zip")
    file = RemoteFile(archive, "enwik8", checksum(content))
    monkeypatch.setattr(enwik8.Enwik8, "FILE", file)
    files = {"enwik8.zip": pack("enwik8.zip", {"enwik8": content})}
    expected = {
        "train": rows("<page>", "", "  Uml\u2028ute", "xxé"),
        "validation": rows("aé"),
        "test": rows("12"),
    }
    return Case("enwik8", files, {"enwik8": content}, expected, "enwik8.zip")


def small_text8(monkeypatch, address):
    content = b" anarchism originated as a term"
    monkeypatch.setattr(enwik8, "HELD_OUT", 4)
    archive = RemoteArchive(f"{address}/text8.zip")
    file = RemoteFile(archive, "text8", checksum(content, "sha1"))
    monkeypatch.setattr(enwik8.Text8, "FILE", file)
    files = {"text8.zip": pack("text8.zip", {"text8": content})}
    expected = {
        "train": rows(" anarchism originated a"),
        "validation": rows("s a "),
        "test": rows("term"),
    }
    return Case("text8", files, {"text8": content}, expected, "text8.zip")


def small_tinyshakespeare(monkeypatch, address):
    # 31 characters, of which 27 are for training; the boundary is inside a line.
    content = "A:\nSpeak.\n\nB:\nUml\u2028ute, aé12.\nX\n".encode()
    file = RemoteFile(
        RemoteArchive(f"{address}/input.txt"), "input.txt", checksum(content)
    )
    monkeypatch.setattr(tinyshakespeare.Tinyshakespeare, "FILE", file)
    expected = {
        "train": rows("A:", "Speak.", "", "B:", "Uml\u2028ute, aé12"),
        "validation": rows(".", "X"),
    }
    files = {"input.txt": content}
    return Case("tinyshakespeare", files, files, expected, "input.txt")


def small_ptb_char(monkeypatch, address):
    plain, members, expected = {}, {}, {}
    for split, stem in STEMS.items():
        name = f"ptb.char.{stem}.txt"
        plain[name] = text(f"{' '.join(split)} ", " < u n k > _ N ") + b" "
        members[f"simple-examples/data/{name}"] = plain[name]
        monkeypatch.setitem(ptb.PtbChar.CHECKSUMS, split, checksum(plain[name]))
        expected[split] = rows(split, "<unk> N")
    monkeypatch.setattr(ptb.PtbChar, "URL", f"{address}/simple-examples.tgz")
    files = {"simple-examples.tgz": pack("simple-examples.tgz", members)}
    return Case("ptb_char", files, plain, expected, "simple-examples.tgz")


def small_wikitext103(monkeypatch, address):
    plain, expected = {}, {}
    for split, stem in STEMS.items():
        name = f"wikitext-103/wiki.{stem}.tokens"
        plain[name] = text(" ", f" = {split} = ", " ", " A dog\u2028is <unk> . ")
        monkeypatch.setitem(
            wikitext.Wikitext103.CHECKSUMS, split, checksum(plain[name], "sha1")
        )
        expected[split] = rows("", f"= {split} =", "", "A dog\u2028is <unk> .")
    url = f"{address}/wikitext-103-v1.zip"
    monkeypatch.setattr(wikitext.Wikitext103, "URL", url)
    files = {"wikitext-103-v1.zip": pack(url, plain)}
    return Case("wikitext103", files, plain, expected, "wikitext-103-v1.zip")


def small_lm1b(monkeypatch, address):
    plain = {
        name: text(f"Sentence of {name[-14:]} .", "The second .")
        for names in lm1b.SPLITS.values()
        for name in reversed(names)
    }
    expected = {
        split: [
            (line,)
            for name in names
            for line in (f"Sentence of {name[-14:]} .", "The second .")
        ]
        for split, names in lm1b.SPLITS.items()
    }
    content = pack("lm1b.tar.gz", plain)
    archive = RemoteArchive(f"{address}/lm1b.tar.gz", checksum(content))
    monkeypatch.setattr(lm1b, "ARCHIVE", archive)
    return Case("lm1b", {"lm1b.tar.gz": content}, plain, expected, "lm1b.tar.gz")


def small_pg19(monkeypatch, address):
    books = {
        "train/10.txt": b"A book.\r\nIts end.\n",
        "train/100.txt": "Ünother\n".encode(),
        "train/2.txt": b"The third\n",
        "validation/5.txt": b"Valid\n",
        "test/7.txt": b"Tested\n",
    }
    expected = {}
    for split in ("train", "validation", "test"):
        names = [name for name in books if name.startswith(split)]
        sums = [f"{n.split('/')[1]} {checksum(books[n])}\n" for n in names]
        root = checksum("".join(sums).encode())
        monkeypatch.setitem(pg19.SPLITS, split, (len(names), root))
        expected[split] = rows(*(books[name].decode() for name in names))
    monkeypatch.setattr(pg19, "ADDRESS", f"{address}/books")
    monkeypatch.setattr(pg19, "LISTING", f"{address}/o")
    files = {f"books/{name}": content for name, content in books.items()}
    files["o"] = listing(books)
    return Case("pg19", files, books, expected, "books/train/100.txt")


def small_multi30k(monkeypatch, address):
    plain, expected = {}, {}
    stems = multi30k.SPLITS | {stem: stem for stem in multi30k.TEST_SETS}
    for split, stem in stems.items():
        for code in ("fr", "de"):
            plain[f"{stem}.{code}"] = text(f"{stem} {code}", code)
        expected[split] = [(f"{stem} fr", f"{stem} de"), ("fr", "de")]
    for name, content in plain.items():
        stem, _, code = name.partition(".")
        monkeypatch.setitem(multi30k.CHECKSUMS[stem], code, checksum(content))
    monkeypatch.setattr(multi30k, "ADDRESS", address)
    files = {f"{name}.gz": gz(content) for name, content in plain.items()}
    return Case("multi30k/fr-de", files, plain, expected, "val.de.gz")


def small_ted_hrlr(monkeypatch, address):
    folder = "datasets/gl_pt_to_en"
    plain = {
        f"{folder}/gl-pt.train": text("Un can .", "Um gato .", "", "Vazio ."),
        f"{folder}/en.train": text("A dog .", "A cat .", "Nothing .", " "),
        f"{folder}/gl.dev": text("Si ."),
        f"{folder}/en.dev": text("Yes ."),
        f"{folder}/gl.test": text("Non ."),
        f"{folder}/en.test": text("No ."),
    }
    content = pack("qi18naacl-dataset.tar.gz", plain)
    url = f"{address}/qi18naacl-dataset.tar.gz"
    monkeypatch.setattr(ted_hrlr, "ARCHIVE", RemoteArchive(url, checksum(content)))
    expected = {
        "train": [("A dog .", "Un can ."), ("A cat .", "Um gato .")],
        "validation": [("Yes .", "Si .")],
        "test": [("No .", "Non .")],
    }
    files = {"qi18naacl-dataset.tar.gz": content}
    name = "ted_hrlr/en-gl_pt"
    return Case(name, files, plain, expected, "qi18naacl-dataset.tar.gz")


def small_iwslt14(monkeypatch, address):
    about = ("<url>http://ted.com</url>", "<keywords>talks</keywords>")
    about = (*about, "<talkid>1</talkid>")
    plain = {}
    for code, word, extra in (("de", "Wort", "Ja ja ja ja"), ("en", "word", "Yes yes")):
        told = ["<title>A title</title>", "<description>Told</description>", extra]
        told += [f" {word} {n} & more " for n in range(24)]
        plain[f"de-en/train.tags.de-en.{code}"] = text(*about, *told)
        for path in iwslt14.TESTS:
            test = talks(code, f"{path[14:30]}’s", f"{word} &amp; &quot;so&quot;")
            plain[path.format(language=code)] = test
    content = pack("de-en.tgz", plain)
    archive = RemoteArchive(f"{address}/de-en.tgz", iwslt14.ARCHIVE.checksum)
    monkeypatch.setattr(iwslt14, "ARCHIVE", archive)
    train = [("A title", "A title"), ("Told", "Told")]
    train += [(f"Wort {n} & more", f"word {n} & more") for n in range(24)]
    test = [
        both
        for path in iwslt14.TESTS
        for both in [(f"{path[14:30]}'s",) * 2, ('Wort & "so"', 'word & "so"')]
    ]
    expected = {"train": train[:22] + train[23:], "validation": train[22:23]}
    expected["test"] = test
    files = {"de-en.tgz": content}
    return Case("iwslt14/de-en", files, plain, expected, "de-en.tgz")


def small_wmt14(monkeypatch, address, name="wmt14/en-fr"):
    """Has all five parts for French, the last of them as `.gz` in a `.tar`."""
    other = next(code for code in ("fr", "de") if code in name)
    order = name.removeprefix("wmt14/").split("-")
    files, plain, expected = {}, {}, {"train": []}
    for part, (archive, path) in list(wmt14.TRAIN.items()):
        members = {}
        for code in ("en", other):
            member = path.format(pair=f"{other}-en", language=code)
            blank = "" if code == "en" else "Vide"
            lines = text(f"{part} {code}\u2028x\r", blank, code)
            members[member] = gz(lines) if member.endswith(".gz") else lines
        files[archive.name] = pack(archive.name, members)
        found = RemoteArchive(
            f"{address}/{archive.name}", checksum(files[archive.name])
        )
        monkeypatch.setitem(wmt14.TRAIN, part, (found, path))
        if other == "fr" or part not in wmt14.ONLY_FRENCH:
            plain |= members
            expected["train"].append(tuple(f"{part} {c}\u2028x" for c in order))
            expected["train"].append(tuple(order))
    news = {
        f"dev/newstest{year}.{code}": text(f"News of {year} {code}", code)
        for year in range(2010, 2014)
        for code in ("en", other)
    }
    stem = f"dev/newstest2014-{other}en"
    news[f"{stem}-src.{other}.sgm"] = sgm("src", other, f"{other} &amp; Co.", "")
    news[f"{stem}-ref.en.sgm"] = sgm("ref", "en", "en &amp; Co.", "Not empty")
    for split, year in {"validation": 2013, "newstest2010": 2010}.items():
        expected[split] = [tuple(f"News of {year} {c}" for c in order), tuple(order)]
    empty = {"en": "Not empty", other: ""}
    expected["test"] = [tuple(f"{c} & Co." for c in order)]
    expected["test"].append(tuple(empty[c] for c in order))
    files["dev.tgz"] = pack("dev.tgz", news)
    found = RemoteArchive(f"{address}/dev.tgz", checksum(files["dev.tgz"]))
    monkeypatch.setattr(wmt14, "NEWS", found)
    return Case(name, files, plain | news, expected, "training-parallel-nc-v9.tgz")


CORPORA = {
    make.__name__.removeprefix("small_"): make
    for make in (
        *(small_enwik8, small_text8, small_ptb_char, small_wikitext103, small_lm1b),
        small_tinyshakespeare,
        *(small_pg19, small_multi30k, small_ted_hrlr, small_iwslt14, small_wmt14),
    )
}
