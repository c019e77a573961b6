;; Frames upon frames: each on top of the last, ten thousand, dropped at the end all at once.
;; ends: ok
;; cpu-ms: 2000
(func (export "run") (param i32 i32) (result i32)
  (local $f i32) (local $g i32) (local $i i32)
  (local.set $f (call $events))
  (loop
    (call $limit (local.get $f) (i64.const 0) (i64.const 1) (i32.const 512))
    (local.set $g (i32.load (i32.const 516)))
    (call $drop_frame (local.get $f))
    (local.set $f (local.get $g))
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if 0 (i32.lt_u (local.get $i) (i32.const 9000))))
  (i32.const 1024))
