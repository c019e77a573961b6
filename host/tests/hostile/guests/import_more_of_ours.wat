;; Wants a function that one of our interfaces does not have.
;; refused: does not fit the world
;; component
(component
  (import "pyxis:script/tables@0.1.0" (instance (export "drop-table" (func (param "name" string)))))
  (core module $m (func (export "run")))
  (core instance $i (instantiate $m))
  (func (export "run") (canon lift (core func $i "run"))))
