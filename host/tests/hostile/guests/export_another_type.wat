;; Its `run` takes and gives something else.
;; refused: does not fit the world
;; component
(component
  (core module $m (func (export "run") (param i64) (result i64) local.get 0))
  (core instance $i (instantiate $m))
  (func (export "run") (param "x" s64) (result s64) (canon lift (core func $i "run"))))
