;; Reads texts that never repeat as codes, so that the dictionary has no end.
;; ends: exhausted memory or exhausted cpu
(func (export "run") (param i32 i32) (result i32)
  (local $s i32) (local $b i32)
  (local.set $s (call $stream (call $unique)))
  (loop
    (global.set $heap (i32.const 65536))
    (local.set $b (call $next (local.get $s)))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
    (call $codes (local.get $b) (i32.const 0) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
    (call $drop_batch (local.get $b))
    (br 0))
  unreachable)
