;; Keeps every batch of a table without end.
;; ends: exhausted memory
(func (export "run") (param i32 i32) (result i32)
  (local $s i32)
  (local.set $s (call $stream (call $unique)))
  (loop (drop (call $next (local.get $s))) (br_if 0 (i32.eqz (i32.load8_u (i32.const 512)))))
  (i32.const 512))
