;; More core instances than a slot has room for.
;; refused: instances
;; component
(component
  (core module $m (func (export "run")))
  (core instance $i (instantiate $m))
  (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
  (func (export "run") (canon lift (core func $i "run"))))
