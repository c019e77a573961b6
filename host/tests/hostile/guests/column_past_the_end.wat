;; Reads column 4,294,967,295.
;; ends: trapped column 4294967295 of a batch with 3 columns
(func (export "run") (param i32 i32) (result i32)
  (call $int64s (call $next (call $stream (call $events))) (i32.const -1) (i32.const 512))
  (i32.const 1024))
