;; Waits for rows that never come.
;; ends: exhausted deadline
(func (export "run") (param i32 i32) (result i32) (drop (call $next (call $stream (call $silent)))) (i32.const 512))
