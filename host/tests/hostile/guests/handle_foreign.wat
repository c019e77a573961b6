;; Gives a stream where a frame is due.
;; ends: trapped handle index
(func (export "run") (param i32 i32) (result i32)
  (call $limit (call $stream (call $events)) (i64.const 0) (i64.const 1) (i32.const 512))
  (i32.const 512))
