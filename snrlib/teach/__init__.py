"""The teacher's kit: student and instructor copies, slides and marks, out of the notebooks as they are.

``copies``   what is taken out of a notebook, by its tags and by nbgrader's region comments
``build``    all of them into one folder (``snr teach``)
``slides``   one page of reveal.js for each session
``grading``  marks for a folder of submissions (``snr grade``)
``walls``    what a submission may do while it is graded
``pupil``    the process in which it runs
"""
