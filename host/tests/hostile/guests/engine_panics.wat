;; Finds a bug of the engine's: that is our failure, and this run's end alone.
;; ends: internal an engine's bug
(func (export "run") (param i32 i32) (result i32)
  (call $filter (call $events) (i32.const 96) (i32.const 5) (i32.const 512))
  (i32.const 512))
