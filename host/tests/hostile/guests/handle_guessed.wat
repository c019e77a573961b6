;; Tries every handle there could be.
;; ends: trapped unknown handle index
(func (export "run") (param i32 i32) (result i32)
  (local $i i32)
  (drop (call $events))
  (loop
    (call $limit (local.get $i) (i64.const 0) (i64.const 1) (i32.const 512))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br 0))
  unreachable)
