;; Its `run` is no function.
;; refused: does not export `run`
;; component
(component (instance $i) (export "run" (instance $i)))
