;; Opens all the streams it may have and waits on the last.
;; ends: exhausted deadline
(func (export "run") (param i32 i32) (result i32)
  (local $i i32) (local $s i32)
  (loop
    (local.set $s (call $stream (call $silent)))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if 0 (i32.lt_u (local.get $i) (i32.const 8))))
  (drop (call $next (local.get $s)))
  (i32.const 512))
