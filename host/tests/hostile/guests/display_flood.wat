;; Displays under one name after the other, deaf to what it is told.
;; ends: exhausted output
(func (export "run") (param i32 i32) (result i32)
  (local $i i32) (local $f i32)
  (local.set $f (call $events))
  (loop
    (i32.store8 (i32.const 64) (i32.add (i32.const 97) (i32.rem_u (local.get $i) (i32.const 26))))
    (i32.store8 (i32.const 65) (i32.add (i32.const 97) (i32.div_u (local.get $i) (i32.const 26))))
    (call $display (i32.const 64) (i32.const 2) (local.get $f) (i32.const 512))
    (local.set $i (i32.rem_u (i32.add (local.get $i) (i32.const 1)) (i32.const 600)))
    (br 0))
  unreachable)
