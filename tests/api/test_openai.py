"""Every feature of docs/api.md through the openai package, on a real model in three stages."""
import json

import openai
import pytest

PROMPT = "The capital of France is"
ASK = [{"role": "user", "content": "Name three fish, in one short sentence."}]
GREEDY = {"model": "default", "temperature": 0}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def test_models(client):
    models = list(client.models.list())
    assert len(models) == 1
    assert client.models.retrieve(models[0].id).id == models[0].id
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(model="gpt-4", messages=ASK)
    assert error.value.code == "model_not_found" and error.value.param == "model"


def test_chat_answers_and_counts(client):
    answer = client.chat.completions.create(messages=ASK, max_completion_tokens=24, **GREEDY)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content.strip()
    assert choice.finish_reason in ("stop", "length")
    usage = answer.usage
    assert usage.prompt_tokens > 0 and 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.prompt_tokens_details.cached_tokens <= usage.prompt_tokens


def test_chat_stream_says_the_same(client):
    whole = client.chat.completions.create(messages=ASK, max_tokens=24, **GREEDY)
    chunks = list(client.chat.completions.create(messages=ASK, max_tokens=24, stream=True,
                                                 stream_options={"include_usage": True}, **GREEDY))
    assert chunks[0].choices[0].delta.role == "assistant"
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    assert not chunks[-1].choices and chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert all(c.usage is None for c in chunks[:-1])
    assert len({c.id for c in chunks}) == 1
    assert len(chunks) > 5, "the stream came in one piece"


def test_a_second_turn_reuses_the_first(client):
    first = client.chat.completions.create(messages=ASK, max_tokens=16, seed=1, **GREEDY)
    more = ASK + [{"role": "assistant", "content": first.choices[0].message.content},
                  {"role": "user", "content": "Name one more."}]
    second = client.chat.completions.create(messages=more, max_tokens=4, **GREEDY)
    assert second.usage.prompt_tokens_details.cached_tokens > 0


def test_stop_strings(client):
    full = client.completions.create(prompt=PROMPT, max_tokens=32, **GREEDY).choices[0].text
    stop = full[5:9]
    cut = client.completions.create(prompt=PROMPT, max_tokens=32, stop=[stop, "@@@never@@@"], **GREEDY)
    assert cut.choices[0].text == full[:full.index(stop)]
    assert cut.choices[0].finish_reason == "stop"
    streamed = client.completions.create(prompt=PROMPT, max_tokens=32, stop=stop, stream=True, **GREEDY)
    assert "".join(c.choices[0].text for c in streamed) == cut.choices[0].text


def test_seeds_decide_the_text(client):
    def ask(seed):
        return client.completions.create(model="default", prompt="Once upon a time", max_tokens=24, temperature=1.5,
                                         seed=seed).choices[0].text
    assert ask(7) == ask(7)
    assert len({ask(seed) for seed in range(4)}) > 1


def test_n_choices(client):
    answer = client.completions.create(model="default", prompt="Once upon a time", max_tokens=16, temperature=1.5,
                                       seed=11, n=3)
    assert [c.index for c in answer.choices] == [0, 1, 2]
    assert len({c.text for c in answer.choices}) > 1
    texts = ["", "", ""]
    ends = 0
    for chunk in client.chat.completions.create(messages=ASK, max_tokens=8, n=3, stream=True, model="default", seed=3):
        choice = chunk.choices[0]
        texts[choice.index] += choice.delta.content or ""
        ends += choice.finish_reason is not None
    assert all(texts) and ends == 3


def test_chat_logprobs(client):
    answer = client.chat.completions.create(messages=ASK, max_tokens=6, logprobs=True, top_logprobs=3, **GREEDY)
    content = answer.choices[0].logprobs.content
    assert len(content) == 6
    for token in content:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        ranked = [t.logprob for t in token.top_logprobs]
        assert ranked == sorted(ranked, reverse=True)
        assert token.logprob == pytest.approx(ranked[0], abs=1e-5), "greedy takes the most likely token"
    assert b"".join(bytes(t.bytes) for t in content).decode() == answer.choices[0].message.content


def test_completion_logprobs(client):
    answer = client.completions.create(prompt=PROMPT, max_tokens=5, logprobs=2, **GREEDY)
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == len(logprobs.text_offset) == 5
    for token, offset in zip(logprobs.tokens, logprobs.text_offset):
        assert answer.choices[0].text[offset:].startswith(token)


def test_prompts_of_all_shapes_and_echo(client):
    answer = client.completions.create(prompt=[PROMPT, "One, two,"], max_tokens=4, echo=True, **GREEDY)
    assert len(answer.choices) == 2
    assert answer.choices[0].text.startswith(PROMPT) and answer.choices[1].text.startswith("One, two,")
    by_tokens = client.completions.create(prompt=[504, 3575], max_tokens=4, **GREEDY)
    assert by_tokens.usage.prompt_tokens == 2 and by_tokens.usage.completion_tokens == 4


def test_logit_bias_forbids_and_forces(client):
    forced = client.completions.create(prompt=PROMPT, max_tokens=3, logit_bias={"504": 100}, **GREEDY)
    free = client.completions.create(prompt=PROMPT, max_tokens=1, logprobs=1, **GREEDY)
    assert forced.choices[0].text != free.choices[0].text
    assert forced.choices[0].text == 3 * forced.choices[0].text[:len(forced.choices[0].text) // 3]


def complete(client, temperature, **fields):
    extra = {name: fields.pop(name) for name in ("top_k", "min_p", "typical_p", "repetition_penalty") if name in fields}
    answer = client.completions.create(model="default", prompt="a b c a b c a b c a b c a", max_tokens=12,
                                       temperature=temperature, seed=7, extra_body=extra, **fields)
    return answer.choices[0].text


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_the_narrowest_filter_leaves_the_likeliest_token(client, narrow):
    assert complete(client, 2, **narrow) == complete(client, 0)
    wide = {"top_k": 0, "top_p": 1, "min_p": 0}
    assert complete(client, 2, **wide) != complete(client, 0)


@pytest.mark.parametrize("penalty", [{"frequency_penalty": 2}, {"presence_penalty": 2}, {"repetition_penalty": 2}])
def test_penalties_end_a_repetition(client, penalty):
    free, penalized = complete(client, 0), complete(client, 0, **penalty)
    assert len(set(free.split())) <= 4, "it repeats what it was given"
    assert len(set(penalized.split())) > len(set(free.split()))


def test_json_object(client):
    answer = client.chat.completions.create(messages=[{"role": "user", "content": "A fish as JSON with its name."}],
                                            response_format={"type": "json_object"}, max_tokens=200, seed=1, **GREEDY)
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)
    else:
        assert answer.choices[0].message.content.lstrip().startswith("{")


def test_json_schema(client):
    schema = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 12},
                                               "legs": {"type": "integer", "minimum": 0, "maximum": 9}},
              "required": ["name", "legs"], "additionalProperties": False}
    options = dict(
        messages=[{"role": "user", "content": "Describe a cat."}], max_tokens=100, **GREEDY,
        response_format={"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}})
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].finish_reason == "stop"
    animal = json.loads(answer.choices[0].message.content)
    assert set(animal) == {"name", "legs"} and 0 <= animal["legs"] <= 9
    chunks = list(client.chat.completions.create(stream=True, **options))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_tools(client, choice):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    options = dict(messages=messages, tools=[TOOL], tool_choice=choice, parallel_tool_calls=False, max_tokens=150,
                   **GREEDY)
    answer = client.chat.completions.create(**options)
    assert answer.choices[0].finish_reason == "tool_calls"
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.name == "weather" and call.id
    assert set(json.loads(call.function.arguments)) == {"city"}

    name = arguments = ""
    for chunk in client.chat.completions.create(stream=True, **options):
        for delta in chunk.choices[0].delta.tool_calls or []:
            name += delta.function.name or ""
            arguments += delta.function.arguments or ""
    assert name == "weather" and json.loads(arguments) == json.loads(call.function.arguments)

    # The result goes back as a message of role "tool".
    messages += [answer.choices[0].message.model_dump(exclude_none=True),
                 {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    assert client.chat.completions.create(messages=messages, tools=[TOOL], tool_choice="none", max_tokens=8,
                                          **GREEDY).choices[0].finish_reason in ("stop", "length")


def test_a_prompt_over_the_context(client, server):
    context = json.loads(server.get("/v1/models")[1])["data"][0]["context_length"]
    with pytest.raises(openai.BadRequestError) as error:
        client.completions.create(prompt=[504] * (context + 1), max_tokens=1, **GREEDY)
    assert error.value.code == "context_length_exceeded"


@pytest.mark.parametrize("field,value", [("temperature", 3), ("n", 0), ("n", 99), ("stop", ["x"] * 17),
                                         ("logprobs", "yes"),
                                         ("response_format", {"type": "xml"}), ("tools", [1])])
def test_wrong_fields_are_named(client, field, value):
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{"model": "default", "messages": ASK, **{field: value}})
    assert error.value.param.startswith(field)


def test_the_key(server):
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="wrong", max_retries=0).models.list()
    assert server.request("GET", "/health", headers={"Authorization": ""})[0] == 200
