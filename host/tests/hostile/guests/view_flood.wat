;; Declares views for ever.
;; ends: exhausted calls or exhausted cpu
(data (i32.const 2048) "{\"table\":\"a\",\"widget\":\"line\"}")
(func (export "run") (param i32 i32) (result i32) (loop (call $view (i32.const 2048) (i32.const 29) (i32.const 512)) (br 0)) unreachable)
