;; Arithmetic whose result depends on the machine.
;; refused: relaxed
;; component
(component (core module (func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))))
