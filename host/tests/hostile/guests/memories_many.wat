;; More memories than a slot has room for, one an instance.
;; refused: memories
;; component
(component
  (core module $m (memory 1) (func (export "run")))
  (core instance $i (instantiate $m))
  (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (func (export "run") (canon lift (core func $i "run"))))
