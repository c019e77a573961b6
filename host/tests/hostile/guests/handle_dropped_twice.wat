;; Drops a stream twice.
;; ends: trapped unknown handle index
(func (export "run") (param i32 i32) (result i32)
  (local $s i32)
  (local.set $s (call $stream (call $events)))
  (call $drop_stream (local.get $s))
  (call $drop_stream (local.get $s))
  (i32.const 1024))
