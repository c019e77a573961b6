;; Loops for ever without a stack.
;; refused: tail calls
;; component
(component (core module (func $f (return_call $f))))
