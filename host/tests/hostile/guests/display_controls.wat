;; Displays under a name that would drive a terminal.
;; ends: invalid control characters
(data (i32.const 2048) "a\1b[2J")
(func (export "run") (param i32 i32) (result i32)
  (call $display (i32.const 2048) (i32.const 5) (call $events) (i32.const 512))
  (i32.const 512))
