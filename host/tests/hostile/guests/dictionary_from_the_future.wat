;; Asks for entries of a dictionary that are not there yet.
;; ends: ok
(func (export "run") (param i32 i32) (result i32)
  (local $s i32)
  (local.set $s (call $stream (call $events)))
  (drop (call $next (local.get $s)))
  (call $dictionary (local.get $s) (i32.const 2) (i32.const -1) (i32.const 512))
  (i32.const 1024))
