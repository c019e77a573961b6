;; Asks for more memory for ever, though it gets none.
;; ends: exhausted cpu
(func (export "run") (param i32 i32) (result i32) (loop (drop (memory.grow (i32.const 1000))) (br 0)) unreachable)
