;; Loops for ever, over a call that does nothing.
;; ends: exhausted cpu
(func $nothing)
(func (export "run") (param i32 i32) (result i32) (loop (call $nothing) (br 0)) unreachable)
