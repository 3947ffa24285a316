"""The form of every chapter (chapters/*.ipynb), and its recorded claims, also with each seed left out in turn.

What a chapter looks like; a notebook that departs from it fails here.

    cell (in this order)      kind      tags                          what
    # Title                   markdown                                the only H1; below it the question
    ## What you will see      markdown                                three bullets and the minutes it takes
    set-up                    code      setup                         installs d2l_utils when it is missing, from the
                                                                      address in _config.yml; imports; SEED = 0
    ## sections ...           markdown, code                          claim, short cell, what to notice
    live training             code      live                          trains in the cell; takes SEED from the set-up
    a class taught in full    code      taught                        the same syntax tree as in d2l_utils
    a long plotting cell      code      hide-input                    collapsed in the book
    explore(...)              code                                    one explorer a cell, render defined above or in it
    link to the CSV           markdown                                [data](../d2l_utils/recorded/NAME.csv) under each
                                                                      recorded figure
    recorded claims           code      recorded-claims               one cell; needs only d2l and plain Python
    ## Summary                markdown                                five lines
    ## Exercises              markdown
    ### Exercise 1: ...       markdown                                the task
    its check                 code      exercise-check                answer = None; an unanswered one prints
                                                                      "not answered yet" and passes
    its solution              code      solution, hide-cell           executed; metadata jupyter.source_hidden: true and
                                                                      cellView: "form" (`make notebooks` sets both)
    ## Further reading        markdown

Other tags: `nbval-check-output` (the only cells whose output is stored: shapes, counts, small seeded tables; run them,
save, then `make notebooks`), `raises-exception` (the lesson is the error). Plain CommonMark and $maths$: no MyST
directives, no image files. Cells of at most 25 lines (unless `taught`), median at most 4 (counted without blank lines
and comments); 1,500 to 3,000 words of prose.
"""
