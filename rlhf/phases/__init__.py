"""The phases of a run: `rl` is the RL loop, `supervised` trains all else; `corpus`, `best_of_n`, `label` make data sets.

From a prompt to an optimizer step: `rl.run` → `experience.Collector.draw` (samples, rewards, log-probs) → the algorithm's
`advantages` → `lesson.Lesson.learn` → `ModelGroup.train`. Every phase reads its inputs from a `base.PhaseContext`.
"""
