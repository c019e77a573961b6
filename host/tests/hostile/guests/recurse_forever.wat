;; Calls itself without end.
;; ends: trapped call stack exhausted
(func $down (param i64) (result i64) (i64.add (call $down (i64.add (local.get 0) (i64.const 1))) (local.get 0)))
(func (export "run") (param i32 i32) (result i32) (drop (call $down (i64.const 0))) unreachable)
