"""The OpenAI-compatible endpoint, with OpenAI's own client and with httpx, against a real server."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import httpx
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from served import NOVEL, Served, client, image_model, refused, serving, text_model, wait

from ancestral.decoding.continuous import Drawn, Job
from ancestral.recipes.registry import find
from ancestral.serving.limits import Limits
from ancestral.serving.text import Detokeniser, spelled


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(text_model(), Limits(slots=8, queue=40, body=200_000, prompt=3000)) as made:
        yield made


def ask(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=served.url + "/v1", api_key="none", max_retries=0, timeout=30)


def alone(prompts: list[str], draws: int, length: int, seed: int, **options: float) -> list[str]:
    texts = text_model().complete(prompts, draws=draws, length=length, seed=seed, **options)
    return [text[len(prompts[i // draws]) :] for i, text in enumerate(texts)]


def test_texts_are_those_that_the_model_completes(served: Served) -> None:
    prompts = ["It was", "a dark and stormy night; the café was"]
    answer = ask(served).completions.create(
        model="novel", prompt=prompts, n=3, max_tokens=40, seed=5, temperature=0.9, top_p=0.95
    )
    assert [c.text for c in answer.choices] == alone(prompts, 3, 40, 5, temperature=0.9, top_p=0.95)
    assert [c.index for c in answer.choices] == list(range(6))
    assert {c.finish_reason for c in answer.choices} == {"length"}
    assert answer.usage is not None and answer.usage.completion_tokens == 6 * 40
    assert answer.usage.prompt_tokens == sum(len(p.encode()) for p in prompts)
    greedy = ask(served).completions.create(model="novel", prompt="It", max_tokens=30, temperature=0)
    assert greedy.choices[0].text == alone(["It"], 1, 30, 0, temperature=0)[0]
    ids = ask(served).completions.create(model="novel", prompt=list(b"It was"), n=3, max_tokens=40, seed=5)
    assert [c.text for c in ids.choices] == alone(["It was"], 3, 40, 5)


def test_a_stream_adds_up_to_the_whole(served: Served) -> None:
    asked = dict(model="novel", prompt=["It was", "café"], n=2, max_tokens=30, seed=1, logprobs=2, echo=True)
    whole = ask(served).completions.create(**asked)
    texts, scores, finish = [""] * 4, [[] for _ in range(4)], [None] * 4
    usage = None
    for event in ask(served).completions.create(**asked, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        for choice in event.choices:
            texts[choice.index] += choice.text
            finish[choice.index] = choice.finish_reason or finish[choice.index]
            scores[choice.index] += list(
                zip(choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.text_offset, strict=True)
            )
    assert texts == [c.text for c in whole.choices]
    assert finish == [c.finish_reason for c in whole.choices]
    assert usage == whole.usage
    for found, choice in zip(scores, whole.choices, strict=True):
        assert [token for token, _, _ in found] == choice.logprobs.tokens
        assert [offset for _, _, offset in found] == choice.logprobs.text_offset
        assert [value for _, value, _ in found] == pytest.approx(choice.logprobs.token_logprobs, abs=1e-5)


def test_log_probabilities_are_the_models(served: Served) -> None:
    answer = ask(served).completions.create(
        model="novel", prompt="It was", max_tokens=12, seed=2, logprobs=3, echo=True
    )
    scored = answer.choices[0].logprobs
    expected = text_model().log_prob([list_bytes(scored.tokens)], per_site=True).per_site[0]
    assert scored.token_logprobs == pytest.approx(expected.tolist(), abs=1e-4)
    assert all(len(best) == 3 and max(best.values()) >= value - 1e-6 for best, value in zip(
        scored.top_logprobs, scored.token_logprobs, strict=True
    ))  # fmt: skip
    prompt = ask(served).completions.create(model="novel", prompt=NOVEL, max_tokens=0, logprobs=1, echo=True)
    assert prompt.choices[0].text == NOVEL
    total = sum(prompt.choices[0].logprobs.token_logprobs)
    assert total == pytest.approx(float(text_model().log_prob([NOVEL])[0]), abs=1e-3)


def list_bytes(tokens: list[str]) -> bytes:
    return b"".join(
        bytes.fromhex(token.removeprefix("bytes:\\x")) if token.startswith("bytes:") else token.encode()
        for token in tokens
    )


def test_stop_sequences_end_a_text(served: Served) -> None:
    plain = alone(["It was"], 1, 60, 7)[0]
    stop = plain[20:23]
    answer = ask(served).completions.create(model="novel", prompt="It was", max_tokens=60, seed=7, stop=["§§§", stop])
    assert answer.choices[0].text == plain[: plain.index(stop)]
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None and answer.usage.completion_tokens < 60
    events = ask(served).completions.create(
        model="novel", prompt="It was", max_tokens=60, seed=7, stop=stop, stream=True
    )
    assert "".join(event.choices[0].text for event in events) == answer.choices[0].text


@settings(max_examples=60, deadline=None)
@example(data=b"aba", stops=["b", "aba"])  # nothing is drawn behind the b
@example(data=b"aba", stops=["a", "aba"])
@given(
    data=st.binary(max_size=40) | st.text("abé", max_size=20).map(str.encode),
    stops=st.lists(st.text("abé", min_size=1, max_size=3), max_size=3),
)
def test_shown_text_is_final(data: bytes, stops: list[str]) -> None:
    """Pieces add up to the text before the first complete stop sequence; symbols are told once, where they begin."""
    job, spelling = Job(None, 1, 0), [bytes([b]) for b in range(256)]  # type: ignore[arg-type]
    text = Detokeniser(spelling, stops)
    shown, symbols = "", []
    for number, byte in enumerate(data):
        piece = text.add(Drawn(job, byte, "length" if number + 1 == len(data) else ""))
        shown += piece.text
        symbols += [drawn.symbol for drawn in piece.drawn]
        assert all(at <= len(shown) for at in piece.offsets)
    whole = data.decode("utf-8", "replace")
    found = [(whole.find(stop) + len(stop), whole.find(stop)) for stop in stops if stop in whole]  # ends, beginnings
    assert shown == whole[: min(found)[1] if found else len(whole)]
    assert text.stopped == bool(found)
    assert bytes(symbols) == data[: len(symbols)] and (found or len(symbols) == len(data))


def test_symbols_that_are_no_character_are_spelled() -> None:
    assert spelled([b"a", b"\xc3\xa9", b"\xc3"], 1) == "é"
    assert spelled([b"a", b"\xc3\xa9", b"\xc3"], 2) == "bytes:\\xc3"
    assert spelled([b"a"], 5) == ""


def test_requests_of_different_lengths_are_fused_and_yet_alone(served: Served) -> None:
    lengths = [5, 60, 17, 33, 48, 8, 21, 55, 12, 40, 3, 29]

    async def one(http: httpx.AsyncClient, number: int) -> str:
        await asyncio.sleep(0.004 * number)
        body = {"model": "novel", "prompt": NOVEL[: 1 + number * 3], "max_tokens": lengths[number], "seed": number,
                "temperature": 1 if number % 2 else 0.7, "stream": True}  # fmt: skip
        text = ""
        async with http.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        return text

    async def every() -> list[str]:
        async with httpx.AsyncClient(base_url=served.url, timeout=30) as http:
            return await asyncio.gather(*(one(http, number) for number in range(len(lengths))))

    before = served.count("ancestral_step_rows_count"), served.count("ancestral_symbols_total")
    texts = asyncio.run(every())
    for number, text in enumerate(texts):
        heat = 1 if number % 2 else 0.7
        assert text == alone([NOVEL[: 1 + number * 3]], 1, lengths[number], number, temperature=heat)[0]
    steps = served.count("ancestral_step_rows_count") - before[0]
    symbols = served.count("ancestral_symbols_total") - before[1]
    assert symbols == sum(lengths) and steps < symbols / 2
    assert served.count("ancestral_step_rows_bucket", le="8.0") == served.count("ancestral_step_rows_count")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_not_drawn_for(stream: bool) -> None:
    with serving(text_model(), Limits(slots=2, symbols=1 << 20)) as served:
        body = {"model": "novel", "prompt": "It", "max_tokens": 1 << 20, "seed": 0, "stream": stream, "n": 3}
        with client(served) as http:
            if stream:
                with http.stream("POST", "/v1/completions", json=body) as answer:
                    assert next(answer.iter_lines()).startswith("data: ")
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post("/v1/completions", json=body, timeout=0.3)
        wait(lambda: served.count("ancestral_cancelled_total") == 1)
        wait(lambda: served.count("ancestral_streams", state="active") == 0)
        assert served.app.state.worker.waiting == 0 and not served.app.state.worker.engine.busy
        with client(served) as http:
            after = {"model": "novel", "prompt": "It was", "max_tokens": 9, "seed": 1}
            assert (
                http.post("/v1/completions", json=after).json()["choices"][0]["text"] == alone(["It was"], 1, 9, 1)[0]
            )


def test_a_full_queue_is_refused_and_says_when_to_come_back() -> None:
    with serving(text_model(), Limits(slots=1, queue=1, symbols=1 << 20)) as served, client(served) as http:
        body = {"model": "novel", "prompt": "It", "max_tokens": 1 << 20, "stream": True}
        with http.stream("POST", "/v1/completions", json=body) as first:
            lines = first.iter_lines()  # kept: a generator that is let go of closes the stream
            next(lines)
            with http.stream("POST", "/v1/completions", json=body):
                answer = http.post("/v1/completions", json=body | {"stream": False})
                assert "waiting already" in refused(answer, 429)
                assert int(answer.headers["retry-after"]) >= 1
                with pytest.raises(openai.RateLimitError):
                    ask(served).completions.create(model="novel", prompt="x")
                assert http.get("/health").json() == {"status": "ok", "waiting": 2}
        assert "more than the 2" in refused(http.post("/v1/completions", json=body | {"n": 3}), 400)
        assert served.count("ancestral_refused_total", reason="queue") == 2


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({"model": "gpt-9"}, 404, "there is no model 'gpt-9'; this is 'novel'"),
        ({"max_tokens": 5000}, 400, "more than this server draws"),
        ({"max_tokens": 0}, 400, "add echo=true"),
        ({"max_tokens": -1}, 400, "max_tokens"),
        ({"temperature": -1}, 400, "temperature"),
        ({"top_p": 0}, 400, "top_p"),
        ({"prompt": [300]}, 400, "the symbol 300; there are 0 to 255"),
        ({"prompt": "x" * 3001}, 400, "more than 3000; shorten it"),
        ({"prompt": ["\ud800"]}, 400, "surrogate"),
        ({"prompt": []}, 400, "prompt"),
        ({"prompt": {"file": "/etc/passwd"}}, 400, "prompt"),
        ({"n": 2000}, 400, "more than 1024"),
        ({"best_of": 4}, 400, "best_of is not supported"),
        ({"frequency_penalty": 1.5}, 400, "frequency_penalty"),
        ({"suffix": "end"}, 400, "suffix"),
        ({"logprobs": 21}, 400, "logprobs"),
        ({"colour": "red"}, 400, "colour"),
        ({"stop": ["a"] * 17}, 400, "stop"),
    ],
)
def test_what_is_refused_is_said_in_one_sentence(served: Served, change: dict, status: int, says: str) -> None:
    with client(served) as http:
        body = json.dumps({"model": "novel", "prompt": "It", "max_tokens": 2} | change)
        answer = http.post("/v1/completions", content=body, headers={"Content-Type": "application/json"})
        assert says in refused(answer, status)


def test_bodies_that_are_too_large_or_no_json_are_refused(served: Served) -> None:
    with client(served) as http:
        assert "more than 200000 bytes" in refused(http.post("/v1/completions", content=b"x" * 200_001), 413)
        chunks = (b"[" * 10_000 for _ in range(30))
        assert "more than 200000 bytes" in refused(http.post("/v1/completions", content=chunks), 413)
        refused(http.post("/v1/completions", content=b"{", headers={"Content-Type": "application/json"}), 400)
        refused(http.post("/v1/completions", content=b"[" * 100_000, headers={"Content-Type": "application/json"}), 400)
        assert refused(http.get("/v1/nowhere"), 404) == "Not Found"
        assert served.count("ancestral_requests_total", route="other", status="404") >= 1


def test_what_there_is_can_be_listed(served: Served) -> None:
    assert [model.id for model in ask(served).models.list()] == ["novel"]
    assert ask(served).models.retrieve("novel").owned_by == "ancestral"
    with pytest.raises(openai.NotFoundError):
        ask(served).models.retrieve("other")
    with client(served) as http:
        assert http.get("/model").json()["verbs"][:2] == ["sample", "log_prob"]
        assert "ancestral_step_seconds_bucket" in http.get("/metrics").text


def test_a_server_that_stops_finishes_what_it_began() -> None:
    with serving(text_model(), grace=20) as served, client(served) as http:
        body = {"model": "novel", "prompt": "It was", "max_tokens": 300, "seed": 4, "stream": True}
        text = ""
        with http.stream("POST", "/v1/completions", json=body) as answer:
            lines = answer.iter_lines()
            text += json.loads(next(lines)[6:])["choices"][0]["text"]
            stopping = threading.Thread(target=served.stop)
            stopping.start()
            for line in lines:
                if line.startswith("data: {"):
                    text += json.loads(line[6:])["choices"][0]["text"]
        stopping.join()
        assert text == alone(["It was"], 1, 300, 4)[0]
        with pytest.raises(httpx.ConnectError):
            http.get("/health")


def test_a_failure_is_told_and_shows_in_the_health(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(text_model()) as served, client(served) as http:

        def broken() -> list[Drawn]:
            raise RuntimeError("out of luck")

        monkeypatch.setattr(served.app.state.worker.engine, "step", broken)
        body = {"model": "novel", "prompt": "It", "max_tokens": 5}
        answer = http.post("/v1/completions", json=body)
        assert "drawing failed" in refused(answer, 500) and "luck" not in answer.text
        assert http.get("/health").status_code == 503
        refused(http.post("/v1/completions", json=body), 503)


def test_texts_with_an_end_of_their_own() -> None:
    model = find("gpt")(width=16, depth=1, heads=2, length=24, streaming=False)
    model.fit([NOVEL[i : i + 9 + i % 7] for i in range(40)], steps=60, quiet=True)
    with serving(model) as served:
        answer = ask(served).completions.create(model="novel", prompt="It w", n=20, max_tokens=50, seed=3)
        assert [c.text for c in answer.choices] == [t[4:] for t in model.sample(20, given="It w", seed=3)]
        assert {c.finish_reason for c in answer.choices} <= {"stop", "length"}
        with client(served) as http:
            body = {"model": "novel", "prompt": "x" * 24}
            assert "leaves no room" in refused(http.post("/v1/completions", json=body), 400)


def test_models_of_other_data_have_no_completions() -> None:
    with serving(image_model()) as served, pytest.raises(openai.NotFoundError, match="use /sample"):
        ask(served).completions.create(model="novel", prompt="x")
