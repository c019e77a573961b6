;; Loops for ever before it can be called.
;; ends: exhausted cpu
(func $start (loop (br 0)))
(start $start)
(func (export "run") (param i32 i32) (result i32) (i32.const 1024))
