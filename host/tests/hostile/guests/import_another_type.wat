;; Wants a function of ours with another type.
;; refused: does not fit the world
;; component
(component
  (import "pyxis:script/clock@0.1.0" (instance (export "now" (func (result (list u8))))))
  (core module $m (func (export "run")))
  (core instance $i (instantiate $m))
  (func (export "run") (canon lift (core func $i "run"))))
