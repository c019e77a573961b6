;; Goes down a thousand calls and up again, for ever: never deep enough to overflow.
;; ends: exhausted cpu
(func $down (param i32)
  (if (local.get 0) (then (call $down (i32.sub (local.get 0) (i32.const 1))))))
(func (export "run") (param i32 i32) (result i32) (loop (call $down (i32.const 1000)) (br 0)) unreachable)
