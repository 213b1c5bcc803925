"""Chat templates that behave like awkward ones in use, written short."""

# Works on the answer: splits thinking off, keeps it in the last turn alone (as Qwen 3).
THINKING = """
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{%- set answer = message.content.split('</think>')[-1].lstrip('\n') -%}
{%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip('\n')
    if '</think>' in message.content else '' -%}
{{- '<|im_start|>assistant\n' -}}
{%- if loop.last -%}{{- '<think>\n' + thought + '\n</think>\n\n' -}}{%- endif -%}
{{- answer + '<|im_end|>\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\n' -}}{%- endif -%}
"""

# Puts the system prompt into the last user turn, so that no prefix of a chat is a prefix of its
# text (as Mistral v0.3 itself).
SYSTEM_LAST = """
{%- if messages[0].role == 'system' -%}
{%- set system = messages[0].content -%}{%- set turns = messages[1:] -%}
{%- else -%}{%- set turns = messages -%}{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
{%- if message.role == 'user' -%}
{%- if system is defined and loop.index0 >= (turns | length) - 2
    and (loop.last or turns[loop.index0 + 1].role == 'assistant') -%}
{{- '[INST] ' + system + '\n\n' + message.content + '[/INST]' -}}
{%- else -%}{{- '[INST] ' + message.content + '[/INST]' -}}{%- endif -%}
{%- else -%}{{- ' ' + message.content | trim + eos_token -}}{%- endif -%}
{%- endfor -%}
"""

# Spaces inside the markers, no header, a system block inside the user turn (as LLaMA 2).
LLAMA2 = """
{%- if messages[0].role == 'system' -%}
{%- set first = '<<SYS>>\n' + messages[0].content + '\n<</SYS>>\n\n' -%}
{%- set turns = messages[1:] -%}
{%- else -%}{%- set first = '' -%}{%- set turns = messages -%}{%- endif -%}
{%- for message in turns -%}
{%- if message.role == 'user' -%}
{{- bos_token + '[INST] ' + (first if loop.first else '') + message.content | trim + ' [/INST]' -}}
{%- else -%}{{- ' ' + message.content | trim + ' ' + eos_token -}}{%- endif -%}
{%- endfor -%}
"""

_CHATML_TURN = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"

# Does not know generation prompts.
NO_GENERATION_PROMPT = "{% for message in messages %}" + _CHATML_TURN + "{% endfor %}"

# Says itself what is generated: the last answer only, its end of turn left outside.
MARKED = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}"
    "{% generation %}{{ message['content'] }}{% endgeneration %}"
    "{% else %}{{ message['content'] }}{% endif %}"
    "{{ '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

NO_END_OF_TURN = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)

DROPS_ANSWERS = (
    "{% for message in messages if message['role'] != 'assistant' %}"
    + _CHATML_TURN
    + "{% endfor %}"
)
