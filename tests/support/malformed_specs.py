"""Wrong specs and overrides: what each is, its text, where the problem is, and words that say it."""

from __future__ import annotations

HEAD = "schema: 1\nname: t\ndataset: {builtin: chiptune}\nprompts: [a]\n"  # what follows begins in line 5
GRID = "trials:\n  grid:\n    axes: {lora.rank: [4, 8], lora.targets: [attention, ffn]}\n"  # lines 5 to 7
VARIANT = "trials: {variants: [{name: a, lora: {rank: 4}}]}\n"

MALFORMED: list[tuple[str, str, str, str]] = [
    # sections: unknown keys
    (
        "misspelt section",
        HEAD + "modle: {}",
        "5:1",
        "`modle` is not a field of a spec; did you mean `model`?",
    ),
    ("section at the wrong level", HEAD + "lora: {rank: 4}", "5:1", "did you mean `defaults.lora`?"),
    ("field at the wrong level", HEAD + "n_clips: 4", "5:1", "did you mean `generation.n_clips`?"),
    ("unknown key like no other", HEAD + "qqqq: 4", "5:1", "fields are schema, extends, name"),
    ("misspelt field", HEAD + "defaults: {lora: {rnak: 3}}", "5:19", "did you mean `rank`?"),
    # model
    ("number for text", HEAD + "model: {id: 3}", "5:13", "`model.id` is 3; expected text"),
    ("text for a section", HEAD + "model: pocket", "5:8", "is the text 'pocket'; expected a mapping"),
    ("unknown choice", HEAD + "model: {backend: jax}", "5:18", "expected `transformers` or `audiocraft`"),
    ("nearly a choice", HEAD + "model: {backend: transformer}", "5:18", "did you mean `transformers`?"),
    ("unknown dtype", HEAD + "model: {dtype: fp16}", "5:16", "`float16`"),
    # generation
    ("below the least", HEAD + "generation: {n_clips: 1}", "5:23", "expected a whole number from 2 to 10000"),
    ("not whole", HEAD + "generation: {n_clips: 2.5}", "5:23", "is 2.5; expected a whole number"),
    ("number in quotes", HEAD + 'generation: {n_clips: "50"}', "5:23", "the text '50'"),
    ("yes for a number", HEAD + "generation: {n_clips: yes}", "5:23", "the text 'yes'"),
    ("true for a number", HEAD + "generation: {n_clips: true}", "5:23", "`true`; expected a whole number"),
    (
        "nothing for a number",
        HEAD + "generation:\n  n_clips:\n",
        "6:11",
        "null (nothing); expected a whole number",
    ),
    ("clip of no length", HEAD + "generation: {clip_s: 0}", "5:22", "expected a number from 0.2 to 30"),
    ("guidance below one", HEAD + "generation: {guidance: 0.5}", "5:24", "from 1 to 20"),
    ("top_k of nothing", HEAD + "generation: {top_k: 0}", "5:21", "a whole number of at least 1 or `null`"),
    (
        "melodies of no name",
        HEAD + 'generation: {melodies: ""}',
        "5:24",
        "is the text ''; expected a path or `null`",
    ),
    (
        "melodies with a zero byte",
        HEAD + 'generation: {melodies: "a\\0b"}',
        "5:24",
        "expected a path or `null`",
    ),
    ("negative seed", HEAD + "generation: {seed: -1}", "5:20", "a whole number"),
    (
        "not a number",
        HEAD + "generation: {temperature: .nan}",
        "5:27",
        "the text '.nan'; expected a number above 0",
    ),
    ("too large a number", HEAD + "generation: {temperature: 1e999}", "5:27", "too large"),
    ("endless digits", HEAD + f"generation: {{seed: {'9' * 5000}}}", "5:20", "5000 characters"),
    # metrics and prompts
    ("no metric", HEAD + "metrics: []", "5:10", "metrics"),
    ("metrics not in a list", HEAD + "metrics: mfcc20", "5:10", "expected a list"),
    ("unknown metric", HEAD + "metrics: [mfcc20, mfcc21]", "5:19", "did you mean `mfcc20"),
    ("metric without its distance", HEAD + "metrics: [/mfcc20]", "5:11", "nothing precedes the `/`"),
    ("metric without its encoder", HEAD + "metrics: [mean/]", "5:11", "nothing follows the `/`"),
    (
        "settings of the text score",
        HEAD + "metrics: [mfcc20, clap_score]\ndistances: {text: {scale: 100}}",
        "1:1",
        "distances.text is built in and has no settings; remove it",
    ),
    (
        "settings of a built-in distance",
        HEAD + "metrics: [mmd/mfcc20]\ndistances: {mmd: {}}",
        "1:1",
        "distances.mmd is built in and has no settings",
    ),
    ("metric twice", HEAD + "metrics: [mfcc20, mfcc20]", "5:10", "`mfcc20` appears twice"),
    ("empty prompt", HEAD.replace("[a]", '[a, ""]'), "4:14", "text of 1 to 2000 characters"),
    ("prompt twice", HEAD.replace("[a]", "[a, b, a]"), "4:10", "`a` appears twice"),
    ("prompts not in a list", HEAD.replace("[a]", "hello"), "4:10", "expected a list"),
    ("prompts missing", HEAD.replace("prompts: [a]\n", ""), "1:1", "`prompts` is missing"),
    ("prompt file missing", HEAD.replace("[a]", "[{file: no.txt}]"), "4:18", "cannot be read"),
    ("prompt file of a number", HEAD.replace("[a]", "{file: 3}"), "4:17", "expected the path of a text file"),
    ("empty prompt set", HEAD + "prompt_sets: {x: []}", "5:18", "prompt_sets.x"),
    # lora
    ("rank of nothing", HEAD + "defaults: {lora: {rank: 0}}", "5:25", "from 1 to 1024"),
    ("leading zero", HEAD + "defaults: {lora: {rank: 010}}", "5:25", "the text '010'"),
    ("alpha of nothing", HEAD + "defaults: {lora: {alpha: 0}}", "5:26", "a number above 0 or `null`"),
    (
        "misspelt target",
        HEAD + "defaults: {lora: {targets: atention+ffn}}",
        "5:28",
        "did you mean `attention`?",
    ),
    ("broken expression", HEAD + "defaults: {lora: {targets: 're:('}}", "5:28", "not a regular expression"),
    ("no target", HEAD + "defaults: {lora: {targets: []}}", "5:28", "at least one module"),
    ("target of a number", HEAD + "defaults: {lora: {targets: [q_proj, 1]}}", "5:37", "expected text"),
    ("all dropped out", HEAD + "defaults: {lora: {dropout: 1.0}}", "5:28", "below 1"),
    ("yes for true", HEAD + "defaults: {lora: {use_dora: yes}}", "5:29", "expected `true` or `false`"),
    (
        "perhaps for auto",
        HEAD + "defaults: {train: {gradient_checkpointing: perhaps}}",
        "5:44",
        "is the text 'perhaps'; expected `true` or `false` or `auto`",
    ),
    (
        "1 for true or auto",
        HEAD + "defaults: {train: {gradient_checkpointing: 1}}",
        "5:44",
        "expected `true` or `false` or `auto`",
    ),
    # train
    ("no step", HEAD + "defaults: {train: {steps: 0}}", "5:27", "of at least 1"),
    (
        "rate in words",
        HEAD + "defaults: {train: {lr: fast}}",
        "5:24",
        "the text 'fast'; expected a number above 0",
    ),
    ("rate of zero", HEAD + "defaults: {train: {lr: 0}}", "5:24", "above 0"),
    ("misspelt schedule", HEAD + "defaults: {train: {schedule: cosin}}", "5:30", "did you mean `cosine`?"),
    ("more than all", HEAD + "defaults: {train: {caption_dropout: 1.5}}", "5:37", "from 0 to 1"),
    # repeats, resources, report
    ("no seed", HEAD + "repeats: {train_seeds: []}", "5:24", "repeats.train_seeds"),
    ("seed twice", HEAD + "repeats: {train_seeds: [0, 0]}", "5:24", "repeats a seed"),
    ("seed without a list", HEAD + "repeats: {train_seeds: 3}", "5:24", "expected a list"),
    ("less than no GPU", HEAD + "resources: {gpu: -1}", "5:18", "of at least 0"),
    ("one and a half GPUs", HEAD + "resources: {gpu: 1.5}", "5:18", "cannot be reserved"),
    ("no processor", HEAD + "resources: {cpu: 0}", "5:18", "above 0"),
    ("unknown field of the report", HEAD + "report: {formats: [pdf]}", "5:10", "fields are title"),
    # variants
    ("trials as a list", HEAD + "trials: [a]", "5:9", "expected a mapping"),
    ("variants as a mapping", HEAD + "trials: {variants: {a: {}}}", "5:20", "expected a list"),
    ("variant without a name", HEAD + "trials: {variants: [{lora: {rank: 4}}]}", "5:21", "name` is missing"),
    (
        "variant with a field of none",
        HEAD + "trials: {variants: [{name: a, loar.rank: 4}]}",
        "5:31",
        "`lora.rank`?",
    ),
    ("variant with a path as name", HEAD + "trials: {variants: [{name: a/b}]}", "5:28", "a name of letters"),
    (
        "variant with a wrong value",
        HEAD + "trials: {variants: [{name: a, lora: {rank: x}}]}",
        "5:44",
        "whole number",
    ),
    (
        "dotted with a wrong value",
        HEAD + "trials: {variants: [{name: a, lora.rank: x}]}",
        "5:42",
        "whole number",
    ),
    (
        "stated twice",
        HEAD + "trials: {variants: [{name: a, lora: {rank: 4}, lora.rank: 5}]}",
        "5:48",
        "twice",
    ),
    (
        "a name for two",
        HEAD + "trials: {variants: [{name: a}, {name: a, lora.rank: 4}]}",
        "5:32",
        "differ in `lora.",
    ),
    ("the reserved name", HEAD + "trials: {variants: [{name: zero-shot}]}", "5:21", "always there"),
    # grid
    ("grid without axes", HEAD + "trials: {grid: {}}", "5:10", "axes` is missing"),
    ("grid with no axis", HEAD + "trials: {grid: {axes: {}}}", "5:23", "axes"),
    (
        "axis of no field",
        HEAD + "trials: {grid: {axes: {lora.rnak: [4]}}}",
        "5:24",
        "did you mean `lora.rank`?",
    ),
    (
        "axis with a wrong value",
        HEAD + "trials: {grid: {axes: {lora.rank: [4, 0, 8]}}}",
        "5:39",
        "from 1 to 1024",
    ),
    ("axis without a list", HEAD + "trials: {grid: {axes: {lora.rank: 4}}}", "5:35", "expected a list"),
    ("axis of nothing", HEAD + "trials: {grid: {axes: {lora.rank: []}}}", "5:35", "lora.rank"),
    (
        "link to no axis",
        HEAD + GRID + "    zip: {lora.alpha: [1, 2], with: lora.rnk}",
        "8:37",
        "did you mean `lora.rank`?",
    ),
    (
        "link of another length",
        HEAD + GRID + "    zip: {lora.alpha: [1], with: lora.rank}",
        "8:23",
        "has 1 values",
    ),
    ("link without an axis", HEAD + GRID + "    zip: {lora.alpha: [1, 2]}", "8:5", "with` is missing"),
    (
        "link with a wrong value",
        HEAD + GRID + "    zip: {lora.alpha: [1, a], with: lora.rank}",
        "8:27",
        "a number",
    ),
    (
        "link of an axis",
        HEAD + GRID + "    zip: {lora.targets: [a, b], with: lora.rank}",
        "8:11",
        "is already an axis",
    ),
    (
        "exclusion of no axis",
        HEAD + GRID + "    exclude: [{train.steps: 4}]",
        "8:16",
        "not an axis of this grid",
    ),
    ("exclusion of nothing", HEAD + GRID + "    exclude: [{lora.rank: 5}]", "8:27", "never is 5"),
    (
        "exclusion of all",
        HEAD + GRID + "    exclude: [{lora.rank: 4}, {lora.rank: 8}]",
        "8:5",
        "every combination",
    ),
    ("name of no field", HEAD + GRID + '    name: "r{lora.rang}"', "8:11", "did you mean `lora.rank`?"),
    ("name with half a brace", HEAD + GRID + '    name: "r{lora.rank"', "8:11", "brace"),
    ("name that does not tell", HEAD + GRID + '    name: "r{lora.rank}"', "6:3", "put {lora.targets} into"),
    (
        "a grid of millions",
        HEAD
        + "trials:\n  grid:\n    axes:\n"
        + "".join(
            f"      train.{f}: {[*range(1, 60)]}\n"
            for f in ("steps", "batch_size", "eval_every", "grad_accumulation")
        ),
        "7:5",
        "at most 100,000",
    ),
    # baseline and ablations
    ("baseline of no trial", HEAD + VARIANT + "baseline: b", "6:1", "`b` is not a trial"),
    (
        "ablation of nothing",
        HEAD + VARIANT + "ablations: {x: {train.steps: 5}}",
        "6:1",
        "name the trial with",
    ),
    (
        "two changes",
        HEAD + VARIANT + "baseline: a\nablations: {x: {train: {steps: 5, lr: 1}}}",
        "7:13",
        "changes 2",
    ),
    ("no change", HEAD + VARIANT + "baseline: a\nablations: {x: {}}", "7:13", "changes nothing"),
    (
        "change to the same",
        HEAD + VARIANT + "baseline: a\nablations: {x: {lora.rank: 4}}",
        "7:13",
        "is already 4",
    ),
    (
        "change of no field",
        HEAD + VARIANT + "baseline: a\nablations: {x: {lora.rnk: 4}}",
        "7:17",
        "`lora.rank`?",
    ),
    (
        "change to nonsense",
        HEAD + VARIANT + "baseline: a\nablations: {x: {lora.rank: no}}",
        "7:28",
        "whole number",
    ),
    # dataset
    ("two sources", HEAD.replace("{builtin", "{path: x, builtin"), "3:10", "got both"),
    ("no source", HEAD.replace("{builtin: chiptune}", "{clip_s: 5}"), "3:10", "got neither"),
    ("no dataset", HEAD.replace("dataset: {builtin: chiptune}\n", ""), "1:1", "`dataset` is missing"),
    ("unknown built-in", HEAD.replace("chiptune", "techno"), "3:20", "expected `chiptune`"),
    ("unknown name", HEAD.replace("{builtin: chiptune}", "wesnoth"), "3:10", "no name in `datasets`"),
    (
        "unknown name in a variant",
        HEAD + "trials: {variants: [{name: a, dataset: w}]}",
        "5:40",
        "no name in `datasets`",
    ),
    (
        "captions of no text",
        HEAD.replace("chiptune}", "chiptune, captions: {source: text}}"),
        "3:10",
        "captions.text",
    ),
    (
        "captions of two kinds",
        HEAD.replace("chiptune}", "chiptune, captions: {text: a, source: sidecar}}"),
        "3:40",
        "`text` is given, but `source` is `sidecar`",
    ),
    (
        "everything held out",
        HEAD.replace("chiptune}", "chiptune, split: {eval_frac: 1.0}}"),
        "3:49",
        "below 1",
    ),
    # the document
    (
        "key twice",
        HEAD + "model: {id: pocket}\nmodel: {id: pocket}",
        "6:1",
        "appears twice (first on line 5)",
    ),
    ("tag", HEAD + "model: !!python/object:os.system {id: pocket}", "5:8", "is not supported"),
    ("unknown alias", HEAD + "model: *m", "5:8", "before or inside its anchor"),
    ("anchor within itself", HEAD + "model: &m {id: *m}", "5:16", "before or inside its anchor"),
    ("merge key", HEAD + "defaults: &d {}\nmodel: {<<: *d}", "6:9", "use `extends`"),
    ("tab", HEAD + "model:\n\tid: pocket", "6:1", "tabs"),
    ("open bracket", HEAD + "metrics: [mfcc20", "6:1", "not valid YAML"),
    ("colon in text", HEAD + "report: {title: a}\nmodel: id: pocket", "6:10", "in quotes"),
    ("second document", HEAD + "---\nschema: 1", "5:1", "second document"),
    ("list as a key", HEAD + "? [a]\n: b", "5:3", "a key must be plain text"),
    ("too deep", HEAD + "model: " + "[" * 40 + "]" * 40, "5:32", "nested deeper"),
    (
        "aliases bomb",
        HEAD
        + "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
            for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        "9:",
        "including aliases",
    ),
    ("list for a spec", "- schema: 1", "1:1", "a spec is a mapping"),
    ("empty", "", "1:1", "the file is empty"),
    ("comments only", "# nothing\n", "1:1", "the file is empty"),
    ("another version", HEAD.replace("schema: 1", "schema: 2"), "1:9", "`schema` is 2; expected `1`"),
    ("no version", HEAD.replace("schema: 1\n", ""), "1:1", "`schema` is missing"),
    ("name with a space", HEAD.replace("name: t", "name: a b"), "2:7", "a name of letters"),
    ("control character", HEAD + "report: {title: a\x01b}", "", "remove the control character"),
    # parents
    ("parent that is not there", HEAD + "extends: no.yaml", "5:10", "cannot be opened"),
    ("parent of a number", HEAD + "extends: [3]", "5:11", "expected the path of a spec"),
    ("parent of a mapping", HEAD + "extends: {a: b}", "5:10", "expected a path or a list"),
    (
        "recordings of no name",
        HEAD.replace("builtin: chiptune", 'path: ""'),
        "3:17",
        "`dataset.path` is the text ''; expected a path",
    ),
    (
        "captions of no name",
        HEAD.replace("builtin: chiptune", 'path: m, captions: {file: ""}'),
        "3:37",
        "`dataset.captions.file` is the text ''",
    ),
    (
        "clips of no name",
        HEAD + 'trials: {variants: [{name: o, external: {clips: ""}}]}',
        "5:49",
        "external.clips` is the text ''; expected a path",
    ),
    (
        "program's file of no name",
        HEAD + 'trials: {variants: [{name: o, external: {command: [a], files: [""]}}]}',
        "5:64",
        "external.files[0]` is the text ''; expected a path",
    ),
    ("parent of itself", HEAD + "extends: t.yaml", "5:10", "in a circle"),
]

OVERRIDES: list[tuple[str, str]] = [
    ("lora.rnak=4", "did you mean `rank`?"),
    ("lora.rank=x", "expected a whole number from 1 to 1024"),
    ("lora.rank=[1", "not valid YAML"),
    ("lora.rank", "expected KEY=VALUE"),
    ("=4", "expected KEY=VALUE"),
    ("lora..rank=4", "expected KEY=VALUE"),
    ("lora.rank=", "the value is empty"),
    ("lora.rank=!!int 4", "is not supported"),
    ("generation={n_clips: 1}", "from 2 to 10000"),
    ("extends=x.yaml", "cannot be overridden"),
    ("metrics=[mfcc21]", "unknown metric"),
    ("trials.variants=[{name: a, lora.rnk: 3}]", "did you mean `lora.rank`?"),
    ("baseline=nobody", "is not a trial"),
]
