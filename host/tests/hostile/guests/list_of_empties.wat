;; Half a million parameters, each empty: what the host makes of them is larger than what the guest has.
;; ends: exhausted cpu or trapped
(func (export "run") (param i32 i32) (result i32)
  (drop (memory.grow (i32.const 300)))
  (loop
    (call $sql (i32.const 16) (i32.const 6) (i32.const 65536) (i32.const 500000) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 512))))
    (br 0))
  unreachable)
