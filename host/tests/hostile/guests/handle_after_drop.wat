;; Uses a frame it has dropped.
;; ends: trapped unknown handle index
(func (export "run") (param i32 i32) (result i32)
  (local $f i32)
  (local.set $f (call $events))
  (call $drop_frame (local.get $f))
  (call $limit (local.get $f) (i64.const 0) (i64.const 1) (i32.const 512))
  (i32.const 512))
