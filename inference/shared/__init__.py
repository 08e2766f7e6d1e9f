"""What all programs share: arguments, the folder of results, tables, the look of pictures, where they run, in how many
processes.
"""
